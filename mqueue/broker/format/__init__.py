"""A message as bytes: one layout for the log, Redis and PostgreSQL.

What happens here. A *record* is what changes of a message, a *body* is what never changes. Scripts read a record by its
offsets; a flush copies a body as it is into a row. All of this is pure: bytes in, values out.

Who is authoritative. `record.py` for the offsets: the scripts (`cache/lua/lib/unit.lua`) and the row statements follow
it. What a log holds is part of the log's version (docs/wal-format.md), and golden files hold it.

What failure does. None happens here. Bytes that do not read are noticed before, by their checksum.

Which file to open:

    record.py       a message as record and body, and idempotency keys
    entries.py      the payloads of log records: enqueues, outcomes, what was refused
    log_record.py   one record of the log, as a tuple
    tail.py         the end of a log, folded by message, for a replay
"""
