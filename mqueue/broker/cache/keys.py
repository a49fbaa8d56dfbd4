"""Every Redis key is made here, by one function each. All keys of shard k share the hash tag `{mq<k>}`, so a Redis
Cluster works too.

The number of the format is part of each key, so that brokers whose releases lay the state out in different ways never
read each other's: the one does not find the epoch of the other, and its leader closes it and opens its own.
"""

FORMAT = 4  # raise it with any change to what a key holds


def tag(shard: int) -> str:
    """What the keys of this shard begin with, in every format."""
    return f"{{mq{shard}}}:"


def prefix(shard: int) -> str:
    return f"{tag(shard)}{FORMAT}:"


def shard(k: int) -> str:
    """hash: epoch, term, clock, T, limits, buffer bytes, numbers, bytes used"""
    return prefix(k) + "shard"


def record(k: int) -> str:
    """hash: id → record"""
    return prefix(k) + "record"


def body(k: int) -> str:
    """hash: id → body"""
    return prefix(k) + "body"


def error(k: int) -> str:
    """hash: id → text of the last nack that no flush has taken yet"""
    return prefix(k) + "error"


def ready(k: int, topic: str) -> str:
    """zset: due messages below the frontier"""
    return f"{prefix(k)}ready:{topic}"


def spill(k: int, topic: str) -> str:
    """zset: due messages at or above the frontier that PostgreSQL may not have yet"""
    return f"{prefix(k)}spill:{topic}"


def dead(k: int, topic: str) -> str:
    """zset: ids of dead messages that no flush has buried yet"""
    return f"{prefix(k)}dead:{topic}"


def topic(k: int, name: str) -> str:
    """hash: frontier, low, asked, counters"""
    return f"{prefix(k)}topic:{name}"


def topics(k: int) -> str:
    """set: names of the topics this Redis knows"""
    return prefix(k) + "topics"


def delayed(k: int) -> str:
    """zset: id by due time"""
    return prefix(k) + "delayed"


def leases(k: int) -> str:
    """zset: id by lease end"""
    return prefix(k) + "leases"


def dirty(k: int) -> str:
    """list: the write-behind buffer, one entry a batch"""
    return prefix(k) + "dirty"


def key_ends(k: int) -> str:
    """zset: key hash → when it goes from here, µs; PostgreSQL has it"""
    return prefix(k) + "key_ends"


def idempotency(k: int) -> str:
    """hash: key hash → id, body hash, origin, expiry"""
    return prefix(k) + "keys"


def wake(k: int, node: int) -> str:
    """list: topics on which this node should wake one waiter; behind `!` those that are open now, one a line;
    `@`: something is due, and it leads"""
    return f"{prefix(k)}wake:{node}"


def ask(k: int) -> str:
    """list: the bell that a topic rings that asks for a refill (which ones: `askers`, `asked:<namespace>`)"""
    return prefix(k) + "ask"


def flush(k: int) -> str:
    """list: the leader should flush all there is"""
    return prefix(k) + "flush"
