"""Redis: the hot state of a shard. Only this package knows the client library, the keys and the scripts.

What happens here. Each operation is one Lua script (`lua/`), and one method of `ReadyCache`. A script compares the
epoch before it writes anything, and a leader's script the term, too; nothing else comes between its steps. Its header
is its contract: keys, arguments, answers, and which moves of a message's state it performs.

Who is authoritative. The scripts are the only writers of the hot state, and decide alone what a fetch or a settle gets.
Nothing in Redis must last: all of it may vanish at any instant, and comes back from PostgreSQL and the logs.

What failure does. CacheLost means that no answer came, and whether the script ran is unknown; batches carry numbers, so
that they can be repeated. CacheRefused means that Redis answered and refused (it is full, read-only, busy ...): nothing
happened. EpochEnded and Deposed mean that the script refused, and changed nothing. Another server, or
one that was restarted, has another run id: the epoch ends.

Which file to open:

    ready.py         ReadyCache: one method for each script, and the plain reads
    server.py        connections to it, and how a script is run there
    refusals.py      tells what refuses from what does not answer
    calls.py         what goes into the scripts, and what comes out of them
    keys.py          every key of Redis, a function each
    scripts.py       loads the scripts
    connections.py   which connection a command goes over
    pipeline.py      one connection: commands out, answers in, in order
    sentinel.py      which server is the master
"""
