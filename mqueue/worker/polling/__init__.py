"""What a worker asks of the broker, and when: messages for free slots, and settles for what has ended.

What happens here. Both ride in one call, `POST /poll`. Topics that one poll can name are a lane; a lane that gave all
it was asked for is asked again at once, the others have a poll that waits at the broker. What ended is collected for a
moment, so that quick jobs share a call. What a batch still lacks is fetched beside that.

Who is authoritative. The slots are: what is asked for takes its slots until the answer is there, so no message comes
for which there is none. `plan.py` decides from slots, lanes and settles which poll is due, and changes nothing;
`fetcher.py` sends it, and notes what that and the answer change. The broker's verdict on a settle is final.

What failure does. A lane whose poll gets no answer is left alone for a pause that grows, so is each kind of settles:
neither holds up the others. Settles are sent again until the broker has taken or refused them, and while they pile up
fewer messages are fetched. A settle that cannot be sent at all is given up alone: its lease ends, its message comes
again. After a time in which the loop did not turn, what came meanwhile goes back.

Which file to open:

    plan.py         which poll is due, for what, and when to look again: pure
    fetcher.py      sends the polls, and does what follows from each answer
    waits.py        polls that wait at the broker, ended by name when the worker stops
    filling.py      what a batch still lacks is fetched
    settles.py      what is to be settled: what goes together, what waits after a failure
    lane.py         the topics that one poll names, and what is known of them
    pause.py        how long something that failed is left alone
    pace.py         for how many slots is fetched where leases are renewed late
    absence.py      that the loop did not turn for a while: what came may be another's
    reach.py        whether the broker can be reached, for the probe; connections that lead nowhere
"""
