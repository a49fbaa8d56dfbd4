"""@task: names, options, what `enqueue` sends; arguments to bytes and back into their annotated types."""

import asyncio
import json
import math
import subprocess
import sys
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from fake_broker import FakeBroker
from pydantic import BaseModel

from mqueue.worker.arguments import codec
from mqueue.worker.arguments.codec import Misfit
from mqueue.worker.tasks.app import MQueue
from mqueue.worker.tasks.names import default_name
from mqueue.worker.tasks.retry import Retry


@pytest.fixture
def registry() -> MQueue:
    return MQueue()


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


def test_a_task_is_still_its_function(registry: MQueue) -> None:
    @registry.task
    def double(n: int) -> int:
        """Twice n."""
        return 2 * n

    assert double(4) == 8
    assert (double.__name__, double.__doc__) == ("double", "Twice n.")
    assert double.name == f"{__name__}.test_a_task_is_still_its_function.<locals>.double"
    assert (double.topic, double.namespace, double.defaults.priority) == ("default", "default", 0)
    assert registry.get(double.name) is double


def test_calls_that_mean_the_same_have_one_unique_key(registry: MQueue) -> None:
    @registry.task(unique="waiting")
    def count(product: int, store: str = "main", *, box: Box | None = None, marks: dict[str, int] | None = None) -> None: ...

    box = Box(Point(1, 2.0), datetime(2026, 1, 1, tzinfo=UTC))
    same = [count.message(7), count.message(product=7), count.message(7, store="main"), count.message(7, box=None)]
    assert len({item.unique_key for item in same}) == 1
    others = [count.message(8), count.message(7, "x"), count.message(7, box=box), count.message(7, marks={"a": 1, "b": 2})]
    assert len({item.unique_key for item in [*same, *others]}) == 5
    assert count.message(7, marks={"b": 2, "a": 1}).unique_key == others[-1].unique_key

    @registry.task
    def plain(product: int) -> None: ...

    assert plain.message(7).unique_key is None
    assert plain.options(unique="waiting").message(7).unique_key not in {item.unique_key for item in same}
    with pytest.raises(ValueError, match="'waiting', or nothing"):
        plain.options(unique="running")  # type: ignore[call-overload]


def test_what_enqueue_sends(registry: MQueue) -> None:
    @registry.task(topic="emails", priority=5, max_retries=7, lease=60, name="send", namespace="shop")
    def send(to: str, *, subject: str = "") -> None: ...

    item = send.message("ada", subject="hi")
    assert msgspec.json.decode(item.payload) == {"task": "send", "args": ["ada"], "kwargs": {"subject": "hi"}}
    assert (item.topic, item.namespace, item.priority, item.max_retries, item.lease) == ("emails", "shop", 5, 7, 60)
    other = send.options(priority=-1, delay=3, ttl=9, idempotency_key="k", metadata={"a": 1}, namespace="x").message("ada")
    assert (other.priority, other.delay, other.ttl, other.idempotency_key) == (-1, 3, 9, "k")
    assert (other.metadata, other.namespace, other.max_retries) == ({"a": 1}, "x", 7)
    assert send.message("ada").priority == 5


def test_topics_are_those_of_the_tasks(registry: MQueue) -> None:
    registry.task(topic="b", name="1")(lambda: None)
    registry.task(topic="a", name="2", namespace="n")(lambda: None)
    registry.task(topic="b", name="3")(lambda: None)
    assert [str(t) for t in registry.topics()] == ["default/b", "n/a"]
    assert [str(t) for t in registry.topics("x")] == ["x/a", "x/b"]


def test_a_bad_topic_is_refused_where_it_is_written(registry: MQueue) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        registry.task(topic="no spaces")


def test_a_main_module_goes_by_the_name_it_is_imported_by(monkeypatch: pytest.MonkeyPatch) -> None:
    import __main__

    def f() -> None: ...

    f.__module__, f.__qualname__ = "__main__", "f"
    monkeypatch.setattr(__main__, "__spec__", None)
    monkeypatch.setattr(__main__, "__file__", "/somewhere/emails.py", raising=False)
    assert default_name(f) == "emails.f"


def test_a_call_that_cannot_be_is_refused_at_once(registry: MQueue) -> None:
    @registry.task
    def send(to: Any) -> None: ...

    with pytest.raises(TypeError, match="missing"):
        send.message()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected"):
        send.message("a", cc="b")  # type: ignore[call-arg]
    nans = (math.nan, {"a": [None, (math.inf,)]}, Point(1, math.nan), [{-math.inf}])
    for value in (object(), "\ud800", *nans):
        with pytest.raises(TypeError, match=r"^task .*send: argument 'to': "):
            send.message(value)
    assert b"null" in send.message([None, "null", Decimal("NaN"), msgspec.Raw(b"null")]).payload


class Person(BaseModel):
    name: str
    born: date
    photo: bytes = b""


def test_what_the_worker_would_bury_is_refused_where_it_is_enqueued() -> None:
    app = MQueue("http://nobody.invalid")

    @app.task(name="send")
    def send(to: str, count: int = 1, *ids: int, when: datetime | None = None, points: list[Point] = [], **more: int) -> None: ...

    cases: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((5,), {}, "argument 'to' does not fit: Expected `str`, got `int`"),
        (("a", "5"), {}, "argument 'count' does not fit: Expected `int`, got `str`"),
        (("a", True), {}, "argument 'count'"),
        (("a", 1, 2, "3"), {}, "argument 4 "),
        (("a",), {"when": "tomorrow"}, "argument 'when'"),
        (("a",), {"points": [Point(1, 2), {"x": 1}]}, r"argument 'points' does not fit: .*`y` - at `\$\[1\]`"),
        (("a",), {"extra": 1.5}, "argument 'extra'"),
        (("a",), {"points": {object()}}, "argument 'points': a object has no JSON form"),
        ((), {}, "missing a required argument: 'to'"),
    ]
    for args, kwargs, says in cases:
        with pytest.raises(TypeError, match=f"^task send: {says}"):
            send.enqueue(*args, **kwargs)
    with pytest.raises(ValueError, match=r"task send: its arguments take 300,0\d\d bytes, 262,144 are allowed"):
        send.message("x" * 300_000)


def test_pydantic_models_are_arguments() -> None:
    def f(one: Person, some: dict[str, list[Person]], none: Person | None = None) -> None: ...

    ada = Person(name="Ada", born=date(1815, 12, 10))
    payload = codec.Shape(f).pack("t", (ada, {"a": [ada]}), {"none": None})
    assert json.loads(payload)["args"][0] == {"name": "Ada", "born": "1815-12-10", "photo": ""}
    call = codec.decode(payload)
    assert codec.Shape(f).fit(call.args, call.kwargs) == ([ada, {"a": [ada]}], {"none": None})
    with pytest.raises(TypeError, match=r"(?s)task t: argument 'one' does not fit: .*born"):
        codec.Shape(f).pack("t", ({"name": "Ada", "born": "x"}, {}), {})


def test_only_types_with_a_form_in_json_are_arguments() -> None:
    class Odd:
        pass

    def f(a: Any) -> None: ...

    f.__annotations__["a"] = Odd
    with pytest.raises(TypeError, match=r"^task t: .*f: parameter 'a': .*Odd is no type that an argument of a task can have: .*Any"):
        codec.Shape(f).pack("t", (3,), {})


def test_a_program_that_only_defines_tasks_imports_little() -> None:
    heavy = ("aiohttp", "urllib3", "structlog", "uvloop", "pydantic")
    code = f"import sys; from mqueue import task; task(lambda: None); print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_when_a_call_is_due(registry: MQueue) -> None:
    send = registry.task(lambda: None)
    at = datetime(2030, 1, 1, tzinfo=UTC)
    assert send.options(at=at).message().deliver_after == at
    with pytest.raises(ValueError, match="no time zone"):
        send.options(at=datetime(2030, 1, 1))
    with pytest.raises(ValueError, match="give one"):
        send.options(at=at, delay=3)


def test_a_policys_max_goes_with_the_message(registry: MQueue) -> None:
    assert registry.task(name="a", retry=Retry(max=7))(lambda: None).message().max_retries == 7
    assert registry.task(name="b", retry=Retry(), max_retries=3)(lambda: None).message().max_retries == 3
    with pytest.raises(ValueError, match="give one"):
        registry.task(retry=Retry(max=7), max_retries=3)


def test_an_app_has_its_namespace() -> None:
    app = MQueue(namespace="shop")
    assert app.task(lambda: None).namespace == "shop"
    assert app.task(name="t", namespace="other")(lambda: None).namespace == "other"


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
        (["x", 1], {}, "argument 'n' "),
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


def test_enqueue_from_a_thread_and_from_a_loop(broker: FakeBroker) -> None:
    registry = MQueue(broker.url, broker.token)

    @registry.task(topic="t")
    def add(a: int, b: int) -> int:
        return a + b

    handles = [add.enqueue(1, b=2), asyncio.run(add.enqueue_async(3, 4)), asyncio.run(add.options(priority=9).enqueue_async(5, 6))]
    assert [s.id for s in broker.live()] == [handle.id for handle in handles]
    assert [s.item.priority for s in broker.live()] == [0, 0, 9]


def test_many_are_enqueued_at_once(broker: FakeBroker) -> None:
    app = MQueue(broker.url, broker.token)

    @app.task(topic="t")
    def one(n: int) -> None: ...

    @app.task(topic="u")
    def two() -> None: ...

    handles = app.enqueue_many([*(one.message(n) for n in range(1500)), two.options(priority=3).message()])
    assert [handle.id for handle in handles] == [s.id for s in broker.live()] and broker.requests["/enqueue"] == 2
    assert [handle.task for handle in handles] == [one] * 1500 + [two]
    assert len(asyncio.run(app.enqueue_many_async(one.message(n) for n in range(3)))) == 3
    assert app.enqueue_many([]) == []
    with pytest.raises(TypeError, match="argument 'n'"):
        app.enqueue_many(one.message(n) for n in (1, "2"))  # type: ignore[arg-type]
    assert len(broker.live()) == 1504
