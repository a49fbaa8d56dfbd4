"""The way of a batch: what changes messages goes through here, whether Redis serves or PostgreSQL.

What happens here. Each shard has one committer. It takes all enqueues and settles that wait, gives them one sequence
number, and has one such batch in flight: an append and fdatasync in the log beside one script call. While that is under
way the next batch gathers.

Who is authoritative. The script decides what a settle does, and which enqueues are refused; the log keeps what it
decided. In a cold shard one transaction in PostgreSQL decides, and no log is needed.

What failure does. A call to Redis without an answer is repeated under its number until it is answered or the epoch
ends; the script gives the kept reply again. Where the log cannot be synced the broker ends: what is durable is unknown.
Where it is full, enqueues are refused and settles go on.

Which file to open:

    committer.py   the loop: gather, number, apply and append, answer
    batch.py       what is in a batch, and what its callers are told; pure
    stamps.py      when a message is due that is due at once
    cold.py        the same batch past Redis, as transactions in PostgreSQL
"""
