"""After a death: how what a broker has in its log comes back into the system.

What happens here. Each broker watches the shard row. When the leader closes an epoch, it replays what lies beyond its
position into PostgreSQL, confirms, and joins the epoch that opens next; after a start it does the same with what it
has from before. The log of a broker whose host is dead can be brought in from another machine by hand.

Who is authoritative. A broker's position, in PostgreSQL: the last sequence of its log that is there. It moves in the
transaction that writes the rows, so nothing is replayed twice. What Redis has applied in the present epoch stays its
own, until the flush.

What failure does. A replay that is cut off is begun again; state goes by version, so any part of it may be repeated. A
replay that comes too late for its epoch is *late*: its messages come as arrivals, and its outcomes of other brokers'
messages count no more.

Which file to open:

    membership.py   this broker's part in the life of a shard: look, replay, join
    rescue.py       `mqueue wal replay`: the log of a dead host
    retire.py       `mqueue wal retire`: a broker's number is given back
"""
