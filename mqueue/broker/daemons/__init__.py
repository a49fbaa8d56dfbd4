"""What the leader of a shard does in the background, so that messages stay safe, due and in order.

What happens here. Every broker tries to lead every shard; the one that holds an advisory lock in PostgreSQL does, and
hands over where it is another one's turn. It opens an epoch where none serves. In a hot epoch the daemons run in
lanes, side by side, each with a connection and deadlines of its own; what must not mix takes turns (`lead.py`). The
tick, the audit of the ledger and the look at Sentinel have loops of their own. In a cold epoch it only keeps the
clock, ends leases, prunes and enqueues what is scheduled. A daemon decides and calls: each of its writes is one method
of `store/leader/`, or one script.

Who is authoritative. The *term* in the shard row and in Redis: a new leader raises both before it reads anything, and
each transaction and script of a leader compares it. So a leader that was paused and wakes changes nothing.

What failure does. Where PostgreSQL does not answer a lane, that lane alone begins anew; the term ends where the fence
is lost. A leader that dies, hangs, or alone cannot reach Redis is replaced within seconds. Each daemon can be stopped
anywhere and begun again by the next leader. When Redis has lost the epoch the leader closes it, waits until the
brokers have replayed their logs, and opens the next.

Which file to open:

    leader.py       election, and one term
    favourite.py    which broker should lead a shard: so the leaders are spread
    work.py         what the leader of a hot shard does, in its lanes
    lanes.py        how a lane fails and begins anew
    lead.py         what one leadership works with: shard, store, term, epoch, and whose turn it is
    epoch.py        closes an epoch and opens the next, hot or cold
    flusher.py      from the write-behind buffer in Redis into PostgreSQL
    prefetcher.py   from PostgreSQL into Redis: refill, time scan, arrivals; and eviction
    scheduler.py    schedules that are due become messages
    pruner.py       deletes what is past its time
    mirror.py       long leases are written to PostgreSQL
    key_mover.py    keys of whole requests leave Redis where it holds many
    reconciler.py   looks for rows that nobody would deliver
    auditor.py      compares the ledger with the rows, topic by topic
    cold_shard.py   the leader's work in a shard without Redis
"""
