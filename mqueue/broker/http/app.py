"""The two applications are the API and the metrics page. Here is the table of paths; what happens behind each is in
`hot.py`, `rest.py` and `schedules.py`.
"""

import asyncio
from collections.abc import Awaitable

from starlette.routing import Route, Router

from mqueue.broker.http import problem
from mqueue.broker.http.auth import Authenticator
from mqueue.broker.http.call import Call, Receive, Scope, Send
from mqueue.broker.http.endpoint import ByMethod, Endpoint, Frame
from mqueue.broker.http.hot import Hot
from mqueue.broker.http.quotas import Quotas
from mqueue.broker.http.rest import Rest
from mqueue.broker.http.schedules import Schedules
from mqueue.broker.http.waits import Waits
from mqueue.broker.metrics import CONTENT_TYPE, Metrics
from mqueue.broker.ports import Engine
from mqueue.clock import Clock, SystemClock

GET = ("GET",)
GET_HEAD = ("GET", "HEAD")
POST = ("POST",)


class Api:
    """An ASGI application. `drain()` ends all that wait (fetches, results) with 503; the server
    calls it when it stops. `hot`: the paths of the hot endpoints.
    """

    def __init__(self, frame: Frame, engine: Engine, quotas: Quotas) -> None:
        self._waits = waits = Waits()
        hot = Hot(engine, quotas, waits)
        rest = Rest(engine, waits)
        schedules = Schedules(engine.schedules, quotas)
        self._hot = {
            "/enqueue": Endpoint(frame, "/enqueue", POST, "write", hot.enqueue),
            "/dequeue": Endpoint(frame, "/dequeue", GET, "read", hot.dequeue),
            "/poll": Endpoint(frame, "/poll", POST, "read", hot.poll),
            "/ack": Endpoint(frame, "/ack", POST, "read", hot.ack),
            "/nack": Endpoint(frame, "/nack", POST, "read", hot.nack),
            "/extend": Endpoint(frame, "/extend", POST, "read", hot.extend),
        }
        self.hot = frozenset(self._hot)
        self._cold = Router(
            [
                Route("/dlq", Endpoint(frame, "/dlq", GET, "read", rest.dead_letters)),
                Route("/dlq/delete", Endpoint(frame, "/dlq/delete", POST, "delete", rest.delete_dead)),
                Route("/workers", Endpoint(frame, "/workers", ("GET", "POST"), "read", rest.workers)),
                Route("/topics", Endpoint(frame, "/topics", GET, "read", rest.topics)),
                Route("/messages/{id}/result", Endpoint(frame, "/messages/result", GET, "read", rest.result)),
                Route("/messages/{id}", Endpoint(frame, "/messages", GET, "read", rest.message)),
                Route("/messages/{id}/cancel", Endpoint(frame, "/messages/cancel", POST, "read", rest.cancel)),
                Route("/cancelled", Endpoint(frame, "/cancelled", POST, "read", rest.cancelled)),
                Route("/schedules", Endpoint(frame, "/schedules", GET, "read", schedules.page)),
                Route("/schedules/{name}", ByMethod(frame, "/schedules/name", schedules.by_method())),
                *(
                    Route(f"/schedules/{{name}}/{verb}", Endpoint(frame, f"/schedules/name/{verb}", POST, "write", handler))
                    for verb, handler in (("pause", schedules.pause), ("resume", schedules.resume), ("run", schedules.run))
                ),
                Route("/health", Endpoint(frame, "/health", GET_HEAD, None, rest.health)),
                Route("/ready", Endpoint(frame, "/ready", GET_HEAD, None, rest.ready)),
            ],
            redirect_slashes=False,
            default=Endpoint(frame, "other", (), None, _nowhere),
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._hot.get(scope["path"], self._cold)(scope, receive, send)

    def drain(self) -> None:
        self._waits.drain()


async def _nowhere(call: Call) -> object:
    raise problem.NoSuchEndpoint(f"there is no {call.scope['path'][:128]}")


def api(engine: Engine, auth: Authenticator, quotas: Quotas, metrics: Metrics, clock: Clock | None = None) -> Api:
    """Returns the HTTP API over `engine`."""
    return Api(Frame(auth, metrics, clock or SystemClock()), engine, quotas)


class MetricsApp:
    """An ASGI application that answers `GET /metrics`, without a token."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/metrics":
            status, headers, body = problem.answer(problem.NoSuchEndpoint("there is only /metrics"))
        elif scope["method"] not in GET_HEAD:
            status, headers, body = problem.answer(problem.MethodNotAllowed(GET_HEAD))
        else:
            body = await asyncio.to_thread(self._metrics.render)
            status, headers = 200, [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def metrics_app(metrics: Metrics) -> MetricsApp:
    return MetricsApp(metrics)
