"""Campaigns: one program for each claim that docs/reliability.md makes.

Each prints its figures, and ends with 1 where the claim does not hold. They take minutes; a short form of each is in
`tests/end_to_end/campaigns`.

    kill.py         a broker killed again and again loses nothing
    restart.py      a broker is ready soon after a kill, however much it has not flushed
    flushes.py      Redis emptied again and again: nothing is lost, and work goes on
    outage.py       PostgreSQL away or frozen: what Redis holds goes on
    away.py         Redis away: PostgreSQL serves
    partition.py    one of two brokers dies, or one of its links does
    order.py        strict order under load
    recall.py       an urgent message is the next to start
    fallen.py       what a worker leaves behind is elsewhere soon
    deploy.py       a rolling restart of workers spends no attempt
    resume.py       workers go on soon after the broker is back
    memory.py       memory is bounded, however many messages wait
    budget.py       what Redis holds is bounded in bytes, whatever messages weigh
    topics.py       every topic is served soon after a new epoch, however many there are

    campaign.py     how each begins and ends: options, the table, the verdict

    shards/         what befalls one of several shards
    judging/        what they judge by
    load/           what they are loaded with
"""
