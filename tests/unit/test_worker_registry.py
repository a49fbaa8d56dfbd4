"""@task: names, options, what `enqueue` sends; arguments to bytes and back into their annotated types."""

import asyncio
import math
import timeit
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from fake_broker import FakeBroker, start

from mqueue.worker import codec
from mqueue.worker.codec import Misfit
from mqueue.worker.registry import DuplicateTask, Registry, default_name


@pytest.fixture
def registry() -> Registry:
    return Registry()


@dataclass
class Point:
    x: int
    y: float


class Box(msgspec.Struct):
    corner: Point
    made_at: datetime


def there_and_back(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    call = codec.decode(codec.encode("t", args, kwargs))
    return codec.Shape(function).fit(call.args, call.kwargs)


def test_a_task_is_still_its_function(registry: Registry) -> None:
    @registry.task
    def double(n: int) -> int:
        """Twice n."""
        return 2 * n

    assert double(4) == 8
    assert (double.__name__, double.__doc__) == ("double", "Twice n.")
    assert double.name == f"{__name__}.test_a_task_is_still_its_function.<locals>.double"
    assert (double.topic, double.namespace, double.priority) == ("default", None, 0)
    assert registry.get(double.name) is double


def test_what_enqueue_sends(registry: Registry) -> None:
    @registry.task(topic="emails", priority=5, max_retries=7, lease=60, name="send", namespace="shop")
    def send(to: str, *, subject: str = "") -> None: ...

    item = send.message("ada", subject="hi")
    assert msgspec.json.decode(item.payload) == {"task": "send", "args": ["ada"], "kwargs": {"subject": "hi"}}
    assert (item.topic, item.namespace, item.priority, item.max_retries, item.lease) == ("emails", "shop", 5, 7, 60)
    other = send.options(priority=-1, delay=3, ttl=9, idempotency_key="k", metadata={"a": 1}, namespace="x").message("ada")
    assert (other.priority, other.delay, other.ttl, other.idempotency_key) == (-1, 3, 9, "k")
    assert (other.metadata, other.namespace, other.max_retries) == ({"a": 1}, "x", 7)
    assert send.message("ada").priority == 5


def test_two_functions_may_not_share_a_name(registry: Registry) -> None:
    @registry.task(name="same")
    def one() -> None: ...

    with pytest.raises(DuplicateTask, match=r"'same' is taken by .*test_worker_registry\.py:\d+"):

        @registry.task(name="same")
        def two() -> None: ...

    assert len(registry) == 1


def test_a_reloaded_module_may_define_its_tasks_again(registry: Registry) -> None:
    def make() -> Any:
        @registry.task(name="again")
        def again() -> None: ...

        return again

    first, second = make(), make()
    assert registry.get("again") is second is not first


def test_topics_are_those_of_the_tasks(registry: Registry) -> None:
    registry.task(topic="b", name="1")(lambda: None)
    registry.task(topic="a", name="2", namespace="n")(lambda: None)
    registry.task(topic="b", name="3")(lambda: None)
    assert [str(t) for t in registry.topics()] == ["default/b", "n/a"]
    assert [str(t) for t in registry.topics("x")] == ["x/a", "x/b"]


def test_a_bad_topic_is_refused_where_it_is_written(registry: Registry) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        registry.task(topic="no spaces")


def test_a_main_module_goes_by_the_name_it_is_imported_by(monkeypatch: pytest.MonkeyPatch) -> None:
    import __main__

    def f() -> None: ...

    f.__module__, f.__qualname__ = "__main__", "f"
    monkeypatch.setattr(__main__, "__spec__", None)
    monkeypatch.setattr(__main__, "__file__", "/somewhere/emails.py", raising=False)
    assert default_name(f) == "emails.f"


def test_a_call_that_cannot_be_is_refused_at_once(registry: Registry) -> None:
    @registry.task
    def send(to: Any) -> None: ...

    with pytest.raises(TypeError, match="missing"):
        send.message()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected"):
        send.message("a", cc="b")  # type: ignore[call-arg]
    nans = (math.nan, {"a": [None, (math.inf,)]}, Point(1, math.nan), [{-math.inf}])
    for value in (object(), "\ud800", *nans):
        with pytest.raises(TypeError):
            send.message(value)
    assert b"null" in send.message([None, "null", Decimal("NaN"), msgspec.Raw(b"null")]).payload


def test_arguments_come_back_as_annotated() -> None:
    def f(a: datetime, b: UUID, c: Decimal, d: bytes, p: Point, x: Box, n: dict[int, str], o: float | None = None) -> None: ...

    now, key = datetime.now(UTC), uuid4()
    given = (now, key, Decimal("1.10"), b"\x00\xff", Point(1, 2.5), Box(Point(3, 4.0), now), {7: "seven"})
    args, kwargs = there_and_back(f, *given, o=1.5)
    assert args == list(given)
    assert kwargs == {"o": 1.5}


def test_without_annotation_arguments_come_as_json_has_them() -> None:
    def f(a, b: Any, *rest: int, **more: Decimal) -> None: ...  # type: ignore[no-untyped-def]

    args, kwargs = there_and_back(f, {"x": [1]}, (1, 2), 3, 1 << 70, price=Decimal("2"))
    assert args == [{"x": [1]}, [1, 2], 3, 1 << 70]
    assert kwargs == {"price": Decimal("2")} and type(kwargs["price"]) is Decimal


@pytest.mark.parametrize(
    ("args", "kwargs", "where"),
    [
        (["x", 1], {}, "argument 1 "),
        ([1], {"name": 5}, "argument 'name'"),
        ([1], {}, "missing"),
        ([1, "a", 3], {}, "too many"),
        ([1, "a"], {"other": 3}, "unexpected"),
    ],
)
def test_arguments_that_do_not_fit(args: list[Any], kwargs: dict[str, Any], where: str) -> None:
    def f(n: int, name: str) -> None: ...

    with pytest.raises(Misfit, match=where):
        codec.Shape(f).fit(args, kwargs)


def test_keyword_only_parameters_are_required() -> None:
    def f(*, name: str) -> None: ...

    with pytest.raises(Misfit, match="missing"):
        codec.Shape(f).fit([], {})


@pytest.mark.parametrize("payload", [b"", b"hello", b"[]", b'{"args": []}', b'{"task": 5}', b"\xff", b"[" * 100_000])
def test_a_payload_that_is_no_call(payload: bytes) -> None:
    with pytest.raises(Misfit, match="not a call"):
        codec.decode(payload)


def test_an_annotation_that_cannot_be_read_is_told() -> None:
    def f(a: "Missing") -> None: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(TypeError, match="Missing"):
        codec.Shape(f).prepare()


def test_reading_a_call_is_quick() -> None:
    def f(to: str, n: int, options: dict[str, Any]) -> None: ...

    shape, payload = codec.Shape(f).prepare(), codec.encode("t", ["ada", 3, {"a": 1}], {})

    def once() -> None:
        call = codec.decode(payload)
        shape.fit(call.args, call.kwargs)

    assert min(timeit.repeat(once, number=500, repeat=5)) / 500 < 50e-6  # ten times the aim: machines differ


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with start() as broker:
        yield broker


def test_enqueue_from_a_thread_and_from_a_loop(broker: FakeBroker) -> None:
    registry = Registry(broker.url, broker.token)

    @registry.task(topic="t")
    def add(a: int, b: int) -> int:
        return a + b

    ids = [add.enqueue(1, b=2), asyncio.run(add.enqueue_async(3, 4)), asyncio.run(add.options(priority=9).enqueue_async(5, 6))]
    assert [s.id for s in broker.live()] == ids
    assert [s.item.priority for s in broker.live()] == [0, 0, 9]
