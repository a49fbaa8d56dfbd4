"""The FastAPI dependency and lifespan in a real app, with its test client and a real broker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mqueue import MQueue
from mqueue.client import AsyncClient, NoEndpoint
from mqueue.contrib.fastapi import Client, lifespan, try_later
from mqueue.errors import Forbidden, MQueueError, Pending, Unavailable
from mqueue.testing import Manual, TestBroker


def make(**options: object) -> FastAPI:
    app = FastAPI(lifespan=lifespan(**options))  # type: ignore[arg-type]
    app.add_exception_handler(MQueueError, try_later)

    @app.post("/orders/{namespace}/{number}")
    async def order(namespace: str, number: int, client: Client) -> int:
        return await client.enqueue("orders", str(number).encode(), namespace=namespace)

    return app


def test_a_route_has_the_apps_client_on_a_real_broker(mqueue_broker: TestBroker) -> None:
    app = make(url=mqueue_broker.url, token=mqueue_broker.token)
    with TestClient(app) as http:
        id = http.post(f"/orders/{mqueue_broker.namespace}/7").json()
        opened: AsyncClient = app.state.mqueue
        assert opened._session is not None
        session = opened._session
    [message] = mqueue_broker.client.fetch("orders", namespace=mqueue_broker.namespace)
    assert (message.id, message.payload) == (id, b"7")
    assert session.closed


def test_a_route_enqueues_a_task(mqueue_broker: TestBroker) -> None:
    queue, ran = MQueue(mqueue_broker.url, mqueue_broker.token), list[int]()

    @queue.task(name="ship")
    async def ship(number: int) -> None:
        ran.append(number)

    app = make(queue=queue)

    @app.post("/ship/{number}")
    async def route(number: int) -> str:
        await ship.enqueue_async(number)
        return "queued"

    with TestClient(app) as http:
        assert http.post("/ship/7").json() == "queued"
        assert app.state.mqueue.url == mqueue_broker.url
    mqueue_broker.run_until_idle()
    assert ran == [7]


def test_the_apps_own_lifespan_is_within(mqueue_manual: Manual) -> None:
    states: list[object] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        states.append(app.state.mqueue)
        yield {"mine": 1}
        states.append(app.state.mqueue._session)

    app = make(url="http://127.0.0.1:9", inner=own)
    with TestClient(app) as http:
        assert http.app_state["mine"] == 1
    assert isinstance(states[0], AsyncClient)
    assert len(states) == 2


def test_without_a_lifespan_the_dependency_says_so() -> None:
    app = make()
    with pytest.raises(RuntimeError, match="no client: FastAPI"):
        TestClient(app).post("/orders/n/1")


def test_its_client_is_as_its_queues_unless_told_otherwise() -> None:
    queue = MQueue("http://127.0.0.1:9", "t", timeout=2, batch=True)
    app = make(queue=queue, timeout=3, connections=7)
    with TestClient(app):
        opened = app.state.mqueue
        assert (opened._timeout, opened._connections, opened._sharing is not None) == (3, 7, True)
    with pytest.raises(TypeError, match="time_out"):
        make(url="http://127.0.0.1:9", time_out=3)


def test_apps_that_are_mounted_have_the_client_too(mqueue_broker: TestBroker) -> None:
    app, inner, innermost = make(url=mqueue_broker.url, token=mqueue_broker.token), make(), make()
    app.mount("/sub", inner)
    inner.mount("/sub", innermost)
    for _ in range(2):  # a test begins and ends an app many times; the client is a new one each time
        with TestClient(app) as http:
            assert http.post(f"/sub/orders/{mqueue_broker.namespace}/7").status_code == 200
            assert http.post(f"/sub/sub/orders/{mqueue_broker.namespace}/8").status_code == 200
            assert inner.state.mqueue is app.state.mqueue
    assert len(mqueue_broker.client.fetch("orders", namespace=mqueue_broker.namespace)) == 4


def test_an_app_mounted_too_late_is_told_what_to_do() -> None:
    app = make(url="http://127.0.0.1:9")
    with TestClient(app) as http:
        app.mount("/sub", make())
        with pytest.raises(RuntimeError, match=r"mounted.*before .*begins"):
            http.post("/sub/orders/n/1")


def test_without_a_broker_the_app_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.delenv("MQUEUE_URL", raising=False)
    monkeypatch.setenv("MQUEUE_DATA_DIR", str(tmp_path))
    with pytest.raises(NoEndpoint), TestClient(make()):
        pass


def test_a_busy_broker_is_a_503_other_errors_are_our_own() -> None:
    app = make(url="http://127.0.0.1:9")

    @app.get("/fail/{kind}")
    async def fail(kind: str) -> None:
        errors = {"busy": Unavailable("no room", retry_after=2.5), "result": Pending("it is leased"), "token": Forbidden("no scope")}
        raise errors[kind]

    with TestClient(app) as http:
        reply = http.get("/fail/busy")
        assert (reply.status_code, reply.headers["Retry-After"]) == (503, "3")
        assert "no room" not in reply.text
        reply = http.get("/fail/result")
        assert (reply.status_code, reply.headers["Retry-After"]) == (404, "1")
        assert reply.json() == {"detail": "There is no result yet."}
        with pytest.raises(Forbidden):
            http.get("/fail/token")
