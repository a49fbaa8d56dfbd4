"""A broker in memory has the methods of `Client`, and goes by a clock that tests move.

What happens here. It keeps what users of the API can see: strict order, delays, leases, attempts, dead letters, TTL,
keys, results. It has no log, no stores and no network.

Who is authoritative. The real broker is: `tests/conformance` tells both the same stories and compares.

What failure does. It refuses what it cannot do, by name (`unscheduled.py`), so that no test passes for a wrong reason.

Which file to open:

    broker.py       the broker
    stored.py       a message in it
    order.py        who comes next
    keys.py         idempotency keys
    results.py      what acks have left
    told.py         what workers tell it, and what it tells them
    unscheduled.py  the methods for schedules, which it refuses
"""
