"""For FastAPI: a client that lives as long as the app, given to routes as a dependency; a busy broker is a 503.

app = FastAPI(lifespan=lifespan())

@app.post("/orders")
async def order(client: Client): ...
"""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

from mqueue.client import AsyncClient
from mqueue.errors import MQueueError
from mqueue.worker.app import MQueue

try:
    from fastapi import Depends, FastAPI, Request
    from fastapi.requests import HTTPConnection
    from fastapi.responses import JSONResponse
except ImportError as error:
    raise ImportError("mqueue.contrib.fastapi needs FastAPI: pip install 'mqueue[fastapi]'") from error

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]


def lifespan(queue: MQueue | None = None, *, url: str | None = None, token: str | None = None, inner: Lifespan | None = None) -> Lifespan:
    """A lifespan that opens an AsyncClient and closes it at the end. `inner`: the app's own, within.

    `queue`: the app of tasks whose broker it is; `url`, `token`: else that one; else it is found as ever, and NoEndpoint is raised at
    start where there is none.
    """

    @asynccontextmanager
    async def alive(app: FastAPI) -> AsyncIterator[Any]:
        own_url, own_token = queue.producer.endpoint if queue is not None else (None, None)
        async with AsyncClient(url or own_url, token or (None if url else own_token)) as opened:
            app.state.mqueue = opened
            if inner is None:
                yield None
            else:
                async with inner(app) as state:
                    yield state

    return alive


def client(connection: HTTPConnection) -> AsyncClient:
    """The app's client. Raises RuntimeError where its lifespan opened none."""
    found = getattr(connection.app.state, "mqueue", None)
    if not isinstance(found, AsyncClient):
        raise RuntimeError("no client: FastAPI(lifespan=mqueue.contrib.fastapi.lifespan())")
    return found


Client = Annotated[AsyncClient, Depends(client)]


async def try_later(request: Request, error: Exception) -> JSONResponse:
    """`app.add_exception_handler(MQueueError, try_later)`: where the same enqueue may succeed later, a 503 with Retry-After.

    Anything else is a mistake of this service, not of its caller, and raised again.
    """
    if not isinstance(error, MQueueError) or not error.retryable:
        raise error
    seconds = math.ceil(error.retry_after or 1)
    return JSONResponse({"detail": "The job queue cannot take this now."}, 503, {"Retry-After": str(seconds)})
