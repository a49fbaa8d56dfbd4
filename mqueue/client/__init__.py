"""`Client` for threads, and `AsyncClient` for an event loop, talk to a broker.

What happens here. `protocol.py` builds calls and reads their answers without I/O, `http1.py` turns them into bytes and
back; the two clients only carry them, over few connections that are kept open. With `batch=True` callers that enqueue
at the same time share a request.

Who is authoritative. The broker is. A client keeps nothing: a call without an answer may have taken effect, or not.

What failure does. A call that may be repeated (it reads, or has a key) is sent again with growing delays until its
`timeout` is over; then the broker's own error is raised, or Unavailable.

Which file to open:

    protocol.py      the HTTP API without I/O: builds a call, reads its reply
    sync.py          `Client`
    aio.py           `AsyncClient`
    http1.py         HTTP/1.1 without I/O: writes a request, reads its reply in whatever pieces it comes
    lean_sync.py     carries requests on blocking sockets
    lean_aio.py      carries requests on an event loop
    library_sync.py  the same by urllib3, with MQUEUE_TRANSPORT=library
    library_aio.py   the same by aiohttp, with MQUEUE_TRANSPORT=library
    endpoint.py      which broker, with what token, over which transport
    retry.py         when a failed call is sent again
    sharing.py       who shares a request, and what a refusal means for each; no I/O
    sharing_sync.py  threads that share requests
    sharing_aio.py   coroutines that share requests
"""

from mqueue.client.aio import AsyncClient
from mqueue.client.endpoint import NoEndpoint
from mqueue.client.protocol import EnqueueOptions
from mqueue.client.sync import Client

__all__ = ["AsyncClient", "Client", "EnqueueOptions", "NoEndpoint"]
