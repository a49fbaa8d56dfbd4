"""FastAPI has a client that lives as long as the app, given to routes as a dependency; a busy broker is a 503.

app = FastAPI(lifespan=lifespan())

@app.post("/orders")
async def order(client: Client): ...
"""

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, Unpack

from mqueue.client import AsyncClient
from mqueue.errors import MQueueError, Pending
from mqueue.worker.tasks.app import MQueue
from mqueue.worker.tasks.producer import ClientOptions, check_names

try:
    from fastapi import Depends, FastAPI, Request
    from fastapi.requests import HTTPConnection
    from fastapi.responses import JSONResponse
except ImportError as error:
    raise ImportError("mqueue.contrib.fastapi needs FastAPI: pip install 'mqueue[fastapi]'") from error

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]


def lifespan(
    queue: MQueue | None = None,
    *,
    url: str | None = None,
    token: str | None = None,
    inner: Lifespan | None = None,
    **options: Unpack[ClientOptions],
) -> Lifespan:
    """Returns a lifespan that opens an AsyncClient and closes it at the end. `inner`: the app's own, which runs within
    it. Mounted apps have the client too.

    The broker is that of `url` and `token`, else that of `queue`, the app of tasks; else it is found as usual, and
    NoEndpoint is raised at start where there is none. `options` (`timeout`, `retries`, `connections`, `batch`) are the
    client's; what is not given is as in `queue`.
    """
    check_names(options)

    @asynccontextmanager
    async def alive(app: FastAPI) -> AsyncIterator[Any]:
        own_url, own_token = queue.producer.endpoint if queue is not None else (None, None)
        chosen = queue.producer.options.copy() if queue is not None else ClientOptions()
        chosen.update(options)
        async with AsyncClient(url or own_url, token or (None if url else own_token), **chosen) as opened:
            for each in _with_mounted(app):
                each.state.mqueue = opened
            if inner is None:
                yield None
            else:
                async with inner(app) as state:
                    yield state

    return alive


def _with_mounted(app: FastAPI) -> Iterator[FastAPI]:
    """Yields the app and those mounted in it. A mounted app has a state of its own, and its own
    lifespan is never run.
    """
    yield app
    for route in app.routes:
        if isinstance(below := getattr(route, "app", None), FastAPI):
            yield from _with_mounted(below)


def client(connection: HTTPConnection) -> AsyncClient:
    """Returns the app's client. Raises RuntimeError where its lifespan opened none."""
    found = getattr(connection.app.state, "mqueue", None)
    if not isinstance(found, AsyncClient):
        raise RuntimeError(
            "no client: FastAPI(lifespan=mqueue.contrib.fastapi.lifespan()) opens one. An app that is mounted in that one has it too if it is "
            "mounted before the lifespan begins, with no middleware around it; else set its state.mqueue"
        )
    return found


Client = Annotated[AsyncClient, Depends(client)]


async def try_later(request: Request, error: Exception) -> JSONResponse:
    """`app.add_exception_handler(MQueueError, try_later)` answers 503 with Retry-After where the same enqueue may
    succeed later, and 404 with Retry-After where a result is not there yet.

    Any other error is a mistake of this service, not of its caller, and is raised again.
    """
    if not isinstance(error, MQueueError) or not error.retryable:
        raise error
    status, detail = (404, "There is no result yet.") if isinstance(error, Pending) else (503, "The job queue cannot take this now.")
    return JSONResponse({"detail": detail}, status, {"Retry-After": str(math.ceil(error.retry_after or 1))})
