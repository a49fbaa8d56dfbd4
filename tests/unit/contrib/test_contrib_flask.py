"""The Flask extension in real Flask apps."""

import pytest
from flask import Flask, current_app, g, has_app_context

from mqueue import LogContext
from mqueue.contrib.flask import MQueue
from mqueue.testing import Inline, Manual, TestBroker

seen: list[object] = []


def make(queue: MQueue, name: str) -> Flask:
    app = Flask(name)
    app.config.update(TESTING=True, MQUEUE_URL="http://127.0.0.1:9", MQUEUE_TOKEN="secret", GREETING=f"from {name}")
    queue.init_app(app)

    @app.teardown_appcontext
    def ended(error: BaseException | None) -> None:
        seen.append(("teardown", error))

    @app.post("/orders/<int:number>")
    def order(number: int) -> str:
        g.user = "ada"
        task = queue.get("greet")
        assert task is not None
        task.enqueue(number)
        return "queued"

    return app


@pytest.fixture
def queue() -> MQueue:
    seen.clear()
    queue = MQueue()

    @queue.task(name="greet", topic="orders", max_retries=0)
    def greet(number: int) -> None:
        seen.append((number, current_app.config["GREETING"], g.get("user")))
        if number < 0:
            raise ValueError(number)

    @queue.task(name="greet-async", topic="orders")
    async def greet_async(number: int) -> None:
        seen.append((number, current_app.name, g.get("user")))

    return queue


def test_a_request_enqueues_and_the_handler_has_its_own_app_context(queue: MQueue, mqueue_manual: Manual) -> None:
    app = make(queue, "shop")
    assert app.extensions["mqueue"] is queue
    assert app.test_client().post("/orders/7").text == "queued"
    mqueue_manual.assert_enqueued("greet", args=[7], count=1)
    queue.get("greet-async").enqueue(8)  # type: ignore[union-attr]
    seen.clear()
    mqueue_manual.drain()
    assert seen == [(7, "from shop", None), ("teardown", None), (8, "shop", None), ("teardown", None)]
    assert not has_app_context()


def test_at_once_within_a_request(queue: MQueue, mqueue_inline: Inline) -> None:
    app = make(queue, "shop")
    assert app.test_client().post("/orders/7").status_code == 200
    assert seen == [(7, "from shop", None), ("teardown", None), ("teardown", None)]


def test_teardowns_hear_of_an_error(queue: MQueue, mqueue_manual: Manual) -> None:
    make(queue, "shop")
    queue.get("greet").enqueue(-1)  # type: ignore[union-attr]
    mqueue_manual.drain(dead_ok=True)
    (_, error) = seen[1]  # type: ignore[misc]
    assert isinstance(error, ValueError)


def test_config_and_the_app_of_a_factory(queue: MQueue, mqueue_manual: Manual) -> None:
    assert queue.producer.endpoint is not None
    make(queue, "first")
    make(queue, "second")
    queue.get("greet").enqueue(1)  # type: ignore[union-attr]
    mqueue_manual.drain()
    assert seen[0] == (1, "from second", None)
    at_once = MQueue(Flask("third"), namespace="n", middleware=[LogContext()])
    assert at_once.flask.name == "third"
    assert at_once.task(name="x")(lambda: None).namespace == "n"


def test_the_broker_of_the_config() -> None:
    queue = MQueue()
    make(queue, "shop")
    assert queue.producer.endpoint == ("http://127.0.0.1:9", "secret")


def test_the_rest_is_as_for_an_mqueue() -> None:
    queue = MQueue(batch=True, timeout=2, connections=30, retries=False)
    make(queue, "shop")
    client = queue.producer.client()
    assert (client._batch, client._timeout, client._connections, client._retries) == (True, 2, 30, False)
    assert client.url == "http://127.0.0.1:9"


def test_without_an_app_the_job_fails_and_says_so(queue: MQueue, mqueue_manual: Manual) -> None:
    queue.get("greet").enqueue(1)  # type: ignore[union-attr]
    mqueue_manual.drain(dead_ok=True)
    assert "call init_app(app)" in mqueue_manual.dead[0].error
    assert "executor='process'" in mqueue_manual.dead[0].error


def test_on_a_real_broker(queue: MQueue, mqueue_broker: TestBroker) -> None:
    app = make(queue, "shop")
    app.test_client().post("/orders/7")
    queue.get("greet-async").enqueue(8)  # type: ignore[union-attr]
    seen.clear()
    mqueue_broker.run_until_idle()
    assert sorted(each for each in seen if each != ("teardown", None)) == [(7, "from shop", None), (8, "shop", None)]  # type: ignore[type-var]
