"""`Client` for threads, and `AsyncClient` for an event loop, talk to a broker.

What happens here. `protocol.py` builds requests and reads replies without I/O; the two clients only carry them. With
`batch=True` callers that enqueue at the same time share a request.

Who is authoritative. The broker is. A client keeps nothing: a call without an answer may have taken effect, or not.

What failure does. A call that may be repeated (it reads, or has a key) is sent again with growing delays until its
`timeout` is over; then the broker's own error is raised, or Unavailable.

Which file to open:

    protocol.py      the HTTP API without I/O: builds a call, reads its reply
    sync.py          `Client`, over urllib3
    aio.py           `AsyncClient`, over aiohttp
    endpoint.py      which broker, with what token
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
