"""The use cases of the broker: what a request of a client does, without HTTP.

What happens here. `Engine` has one method for each kind of request; each use case is a module, and none of them knows
another. A use case decides which shard a message belongs to, and asks that shard's committer (what changes messages),
its Redis (fetch, extend) or its PostgreSQL (what people look at). Where an answer is still to come, the call waits in
one of the waiters here, which look for all their callers at once.

Who is authoritative. Not this layer: it keeps nothing that another broker could miss. What it knows of a shard is in
`broker/shard.py`; a receipt is judged by the script, or by PostgreSQL where the shard is cold.

What failure does. A fault of a store becomes `Unavailable`: nothing is promised, and the client repeats. Where it is
unknown whether something happened, the answer says so. A caller that hangs up loses nothing: what was leased for it
is given back, without an attempt. Of several shards those that are well answer, and the others are named.

Which file to open:

    engine.py           Engine: which use case answers which call
    enqueuer.py         enqueue: drafts, idempotency keys, durability
    room.py             enqueues that wait for the write-behind buffer to have place
    fetcher.py          fetch: the least messages, now or as soon as there is one
    settler.py          ack, nack, release, bury, extend
    canceller.py        cancel a message by its id
    dead_letters.py     list and delete dead letters
    views.py            topics with their depths and counters, one message by its id
    schedules.py        put, pause, run and delete periodic tasks
    results.py          the result of a message, now or as soon as it is known
    workers.py          who works, and at what
    fetch_waiters.py    fetches that wait for a message
    edge/               where shards meet: one answer of several, of which some may be away
    result_waiters.py   calls that wait for a result
    result_writer.py    results on their way into PostgreSQL, many in one statement
    cancel_notices.py   workers that wait to hear which of their messages are to be cancelled
"""
