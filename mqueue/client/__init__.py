"""Talk to a broker. `protocol` builds requests and reads replies without I/O; `Client` and `AsyncClient` only carry
them.
"""

from mqueue.client.aio import AsyncClient
from mqueue.client.endpoint import NoEndpoint
from mqueue.client.protocol import EnqueueOptions
from mqueue.client.sync import Client

__all__ = ["AsyncClient", "Client", "EnqueueOptions", "NoEndpoint"]
