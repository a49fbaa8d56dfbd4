"""Options of tasks and calls: what cannot be is refused where it is written, with its name and what it may be."""

import inspect
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic
from zoneinfo import ZoneInfo

import msgspec
import pytest

from mqueue import RateLimited, Retry, Snooze
from mqueue.wire import EnqueueItem
from mqueue.worker.tasks import checks, options, reference
from mqueue.worker.tasks.app import DuplicateTask, MQueue
from mqueue.worker.tasks.options import Lasts, Option, TaskOptions

PAGE = Path(__file__).parents[2] / "docs" / "worker.md"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def app() -> MQueue:
    return MQueue("http://127.0.0.1:9")


def work(self: int = 0, name: str = "") -> None: ...


class Callee:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"priority": "high"}, TypeError, "priority='high': a whole number from -2,147,483,648 to 2,147,483,647"),
        ({"priority": 2**31}, ValueError, "priority=2147483648: a whole number"),
        ({"priority": 1.5}, TypeError, "priority=1.5: a whole number"),
        ({"max_retries": "3"}, TypeError, "max_retries='3': a whole number from 0 to 1,000"),
        ({"max_retries": 2**40}, ValueError, "max_retries=1099511627776: a whole number from 0 to 1,000"),
        ({"max_retries": -1}, ValueError, "max_retries=-1"),
        ({"max_retries": True}, TypeError, "max_retries=True"),
        ({"lease": -5}, ValueError, "lease=-5: seconds from 0.05 to 86,400, or a timedelta"),
        ({"lease": timedelta(days=2)}, ValueError, "lease=datetime.timedelta(days=2): seconds"),
        ({"lease": float("nan")}, ValueError, "lease=nan"),
        ({"retry": 5}, TypeError, "retry=5: a policy, like Retry(max=5)"),
        ({"executor": "process", "time_limit": "5"}, TypeError, "time_limit='5': seconds above 0"),
        ({"executor": "process", "time_limit": 0}, ValueError, "time_limit=0: seconds above 0"),
        ({"executor": "process", "memory_limit_mb": "5"}, TypeError, "memory_limit_mb='5': a number of MiB"),
        ({"executor": "process", "memory_limit_mb": float("inf")}, ValueError, "memory_limit_mb=inf: a number of MiB"),
        ({"time_limit": 5}, ValueError, "need executor='process'"),
        ({"result": True, "result_ttl": "1h"}, TypeError, "result_ttl='1h': seconds above 0 to 2,592,000, or a timedelta"),
        ({"result_ttl": 5}, ValueError, "result_ttl= needs result=True"),
        ({"topic": 5}, TypeError, "topic=5: a text"),
        ({"namespace": "no spaces"}, ValueError, "'no spaces' is no namespace"),
        ({"name": 5}, TypeError, "name=5: a text"),
        ({"name": ""}, TypeError, "name='': a text"),
        ({"every": "5m"}, TypeError, "task t: every='5m': seconds, or a timedelta"),
        ({"cron": 5}, TypeError, "task t: cron=5: a text of five fields"),
        ({"cron": "* * * * *", "timezone": UTC}, TypeError, "timezone=datetime.timezone.utc: a name like 'Europe/Berlin', or a ZoneInfo"),
        ({"batch": 5, "batch_wait": "1"}, TypeError, "batch_wait='1': seconds from 0 to 60"),
    ],
)
def test_an_option_that_cannot_be_is_refused_at_the_decorator(app: MQueue, given: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as raised:
        app.task(**{"name": "t", **given})(work)
    assert says in str(raised.value)
    assert len(app) == 0


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"priority": "high"}, TypeError, "priority='high'"),
        ({"max_retries": 1001}, ValueError, "max_retries=1001: a whole number from 0 to 1,000"),
        ({"lease": 0}, ValueError, "lease=0"),
        ({"ttl": -1}, ValueError, "ttl=-1: seconds above 0"),
        ({"ttl": 0}, ValueError, "ttl=0: seconds above 0"),
        ({"delay": "5"}, TypeError, "delay='5': seconds from 0"),
        ({"delay": -MINUTE}, ValueError, "delay="),
        ({"at": "2030-01-01"}, TypeError, "at='2030-01-01': a datetime with a time zone"),
        ({"idempotency_key": 5}, TypeError, "idempotency_key=5: a text of 1 to 255"),
        ({"idempotency_key": "x" * 256}, ValueError, "idempotency_key has 256 characters"),
        ({"metadata": [1]}, TypeError, "metadata=[1]: a dict"),
        ({"namespace": "a/b"}, ValueError, "'a/b' is no namespace"),
    ],
)
def test_an_option_of_a_call_that_cannot_be_is_refused_at_once(app: MQueue, given: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as raised:
        app.task(work).options(**given)
    assert says in str(raised.value)


def test_an_option_that_there_is_not_is_named_at_the_call(app: MQueue) -> None:
    given: list[tuple[Callable[..., Any], dict[str, Any]]]
    given = [(app.task, {"topc": "t"}), (app.task, {"batch": 5, "dealy": 1}), (app.task(work).options, {"delay": 1, "topic": "t"})]
    for call, wrong in given:
        with pytest.raises(TypeError, match=rf"there is no option '{list(wrong)[-1]}' for a (task|call); there are .*lease, .*priority"):
            call(**wrong)


def test_a_new_option_is_one_line(app: MQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is accepted, checked, kept and compared, and stands in the help and on the page."""

    class More(TaskOptions[Lasts], Generic[Lasts], total=False):
        colour: Annotated[str | None, Option(None, checks.text, "it is painted so")]

    declared = options.declared("task", More)
    monkeypatch.setattr(options, "TASK", declared)
    monkeypatch.setitem(reference.TABLES, "@app.task(…)", declared)

    def make(**given: Any) -> Any:
        return app.task(name="t", **given)(lambda: None)

    assert (make(colour="red").told["colour"], app.task(work).told.get("colour", "?")) == ("red", None)
    with pytest.raises(TypeError, match="colour=5: a text"):
        make(colour=5)
    with pytest.raises(DuplicateTask):
        make(colour="blue")
    assert "\n| `colour` | it is painted so |\n" in reference.written(PAGE.read_text())
    helped = reference.documented(declared)(saying("{options}"))
    assert "`colour`: it is painted so" in str(helped.__doc__) and "colour=None" in str(inspect.signature(helped))


def saying(text: str) -> Callable[..., None]:
    def function(**given: Any) -> None: ...

    function.__doc__ = text
    return function


def test_a_line_without_an_option_is_refused_where_it_stands() -> None:
    class Short(TaskOptions[Lasts], Generic[Lasts], total=False):
        colour: str

    with pytest.raises(TypeError, match=r"Short\.colour in mqueue\.worker\.tasks\.options: write it as Annotated\["):
        options.declared("task", Short)


def test_type_checkers_know_each_option_of_a_task() -> None:
    """One that stands in TaskOptions alone would be accepted here and an error there: `task` unpacks the other two."""
    unpacked = options.PlainOptions.__annotations__.keys() | options.BatchOptions.__annotations__.keys()
    assert TaskOptions.__annotations__.keys() - unpacked == {"batch"}, "mqueue/worker/tasks/options.py: move it up, to where it belongs"


def test_the_page_has_the_options_as_they_are_declared() -> None:
    page = PAGE.read_text()
    for head, declared in reference.TABLES.items():
        assert reference.table(head) in page, f"{head}: python -m mqueue.worker.tasks.reference docs/worker.md"
        sections = {option.see for option in declared.options.values() if option.see}
        heads = {re.sub(r"[^a-z ]", "", line.lower()).strip().replace(" ", "-") for line in re.findall(r"(?m)^## (.*)", page)}
        assert sections <= heads | set(re.findall(r'<a id="([a-z-]+)">', page))


def test_help_has_every_option(app: MQueue) -> None:
    for function, declared in ((app.task, options.TASK), (app.task(work).options, options.CALL)):
        named = {name for name, each in inspect.signature(function).parameters.items() if each.kind is each.KEYWORD_ONLY}
        assert named == set(declared.options) == set(re.findall(r"(?m)^`(\w+)`: ", function.__doc__ or ""))


def test_what_a_task_keeps_does_not_change(app: MQueue) -> None:
    task = app.task(name="t", lease=MINUTE, retry=Retry(max=3))(work)
    assert (task.told["lease"], task.told["max_retries"], task.told["topic"], task.told["time_limit"]) == (60.0, 3, "default", None)
    with pytest.raises(TypeError):
        task.told["lease"] = 5  # type: ignore[typeddict-item]


def test_what_lasts_may_be_a_timedelta(app: MQueue) -> None:
    task = app.task(executor="process", time_limit=MINUTE, lease=MINUTE, result=True, result_ttl=MINUTE)(work)
    assert (task.time_limit, task.defaults.lease, task.result_ttl) == (60.0, 60.0, 60.0)
    item = task.options(delay=MINUTE, ttl=2 * MINUTE, lease=3 * MINUTE).message()
    assert (item.delay, item.ttl, item.lease) == (60.0, 120.0, 180.0)
    assert msgspec.convert(msgspec.to_builtins(item), EnqueueItem) == item
    assert app.task(batch=3, batch_wait=timedelta(seconds=2))(lambda items: None).batch_wait == 2.0
    assert (Snooze(MINUTE).seconds, RateLimited(retry_after=MINUTE).retry_after) == (60.0, 60.0)


def test_what_is_at_a_limit_is_sent(app: MQueue) -> None:
    century = 100 * 365 * 86400
    least = {"priority": -(2**31), "max_retries": 1000, "lease": 86400, "delay": century, "ttl": century, "idempotency_key": "x" * 255}
    for given in (least, {"priority": 2**31 - 1, "max_retries": 0, "lease": 0.05, "delay": 0, "ttl": 1e-6, "idempotency_key": "x"}):
        item = app.task(work).options(**given).message()  # type: ignore[arg-type]
        assert msgspec.convert(msgspec.to_builtins(item), EnqueueItem) == item


class Urgency(IntEnum):
    HIGH = 1


class Measured(float): ...


def test_numbers_may_be_of_kinds_of_their_own(app: MQueue) -> None:
    task = app.task(name="t", priority=Urgency.HIGH, lease=Measured(5))(work)
    for item in (task.message(), task.options(priority=Urgency.HIGH, delay=Measured(2), max_retries=Urgency.HIGH).message()):
        assert (type(item.priority), type(item.lease), item.priority, item.lease) == (int, float, 1, 5.0)


def test_a_time_zone_may_be_an_object(app: MQueue) -> None:
    task = app.task(name="t", cron="0 4 * * *", timezone=ZoneInfo("Europe/Berlin"))(work)
    assert task.periodic is not None and task.periodic.timezone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (partial(work, 1), "takes a function, not a partial: write a def that calls it"),
        (Callee(), "takes a function, not a Callee"),
        ("topic", "task('topic'): it takes a function; options go by name, like topic=…"),
    ],
)
def test_what_is_no_function_is_no_task(app: MQueue, given: Any, says: str) -> None:
    for decorate in (app.task, app.task(topic="t")):
        with pytest.raises(TypeError) as raised:
            decorate(given)
        assert says in str(raised.value)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Retry(on=[3]), TypeError, "Retry(on=[3]): types of exceptions, like (OSError, ValueError)"),  # type: ignore[list-item]
        (lambda: Retry(never=int), TypeError, "Retry(never=<class 'int'>): types of exceptions"),  # type: ignore[arg-type]
        (lambda: Retry(on=None), TypeError, "Retry(on=None): types"),  # type: ignore[arg-type]
        (lambda: Retry(max="3"), TypeError, "Retry(max='3'): a whole number from 0 to 1,000"),  # type: ignore[arg-type]
        (lambda: Retry(max=1001), ValueError, "Retry(max=1001): a whole number"),
        (lambda: Retry(base=MINUTE), TypeError, "Retry(base=datetime.timedelta(seconds=60)): a number of seconds"),  # type: ignore[arg-type]
    ],
)
def test_a_policy_that_cannot_be_is_refused(make: Callable[[], Retry], error: type[Exception], says: str) -> None:
    with pytest.raises(error) as raised:
        make()
    assert says in str(raised.value)


def test_a_policy_takes_any_number_of_types() -> None:
    for on in ([OSError, KeyError], {OSError, KeyError}, (each for each in (OSError, KeyError))):
        policy = Retry(on=on, never=FileNotFoundError)
        assert [policy.wants(error()) for error in (ConnectionError, KeyError, ValueError, FileNotFoundError)] == [True, True, False, False]
    assert Retry(on=[OSError]) == Retry(on=(OSError,)) and hash(Retry(on=[OSError]))


def test_a_parameter_may_be_called_self(app: MQueue) -> None:
    task = app.task(name="t")(work)
    assert task(self=1, name="x") is None  # type: ignore[func-returns-value]
    for item in (task.message(self=1, name="x"), task.options(priority=1).message(self=1, name="x")):
        assert msgspec.json.decode(item.payload)["kwargs"] == {"self": 1, "name": "x"}
    sent: list[EnqueueItem] = []
    app.producer.enqueue_many = lambda items: [sent.extend(items), 7][1:]  # type: ignore[method-assign, assignment, list-item]
    assert (task.enqueue(self=1).id, task.options(delay=1).enqueue(self=2).id, len(sent)) == (7, 7, 2)


def test_a_time_is_a_datetime(app: MQueue) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    assert app.task(work).options(at=at).message().deliver_after == at
