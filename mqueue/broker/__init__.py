"""The broker: it keeps messages safe, keeps them in order, and leases each to one worker at a time.

The life of a message:

 1. `POST /enqueue` is decoded and checked (`http/`), and the enqueuer finds the shard of its topic (`engine/`).
 2. The committer gathers what waits into one batch with one number (`commit/`).
 3. The batch is appended to the log and synced to the disk (`wal/`), while a script applies it in Redis (`cache/`).
 4. When both are done the ids go back to the client: neither a killed broker nor a lost Redis loses the message now.
 5. The script has placed it: *ready* if it is due and below its topic's frontier, else *delayed* or *spill*.
 6. A fetch promotes what has become due, takes the least keys and leases them, each with a receipt.
 7. An ack within the flush age ends the message, and PostgreSQL never hears of it (*elision*).
 8. Otherwise the leader's flusher copies it into PostgreSQL (`store/`); a later flush deletes the row when it ends.
 9. A nack, or a lease that ends, counts an attempt: the message waits for its backoff, or becomes a dead letter.
10. A long backlog lives in PostgreSQL alone; the leader's prefetcher brings it back in order (`daemons/`).
11. When Redis loses its state, the leader closes the epoch; each broker replays its log into PostgreSQL (`recovery/`).
12. Then the next epoch opens: in Redis, or *cold* in PostgreSQL, where no broker can reach Redis.

Who is authoritative. The scripts decide in Redis what happens to a message while it is hot; Redis itself may vanish at
any instant. PostgreSQL is the truth of everything that is flushed, and a broker's log that of what it has acknowledged
since. The shard row in PostgreSQL says which epoch and which leader's term count: whoever finds another one there, or
in Redis, changes nothing.

What failure does. A broker that dies is not missed: any broker serves any request, and its log waits for its next
start. A leader that dies is replaced. Without Redis a shard goes on in PostgreSQL, slower and in the same order;
without PostgreSQL it goes on in Redis until the buffer is full. A log that cannot be synced ends its broker.

Which file to open:

    app.py          the composition root: what is built, started and stopped, in which order
    databases.py    the broker enters the databases of its shards, some of them later
    reload.py       what a broker reads again on SIGHUP
    http/           the HTTP API and the metrics page
    engine/         the use cases, one module each, and who waits for what
    daemons/        what the leader of a shard does in the background
    recovery/       after a death: replay, rescue of a dead host's log, retirement of a number
    commit/         the way of a batch, through Redis or past it
    shard.py        one shard as this broker sees it: its adapters, epoch and mode
    shard_clock.py  what this broker knows of the shard's clock
    store/          PostgreSQL
    cache/          Redis
    wal/            the log
    embedded/       PostgreSQL and Valkey from wheels, started and watched
    format/         a message as bytes, in the log, in Redis and in PostgreSQL
    ports.py        what HTTP may ask of the engine
    metrics.py      every metric, by name
    config.py       every setting, a line each
    faults.py       what the adapters report upward
    failpoints.py   named places where a test can stop or fail the process
    slots.py        which shard serves a topic
    tasks.py        how asyncio tasks are ended for certain
"""
