"""What an argument or a result may be: it arrives as it was given, or is refused where it is given; types are checked
beforehand.
"""

import enum
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Generic, Literal, NamedTuple, NotRequired, ParamSpec, TypedDict, TypeVar, Unpack
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, SecretStr, computed_field

from mqueue import MQueue
from mqueue.worker.arguments import codec
from mqueue.worker.arguments.codec import BadResult, Misfit, Shape
from mqueue.worker.sources import WorkerError, prepare

T = TypeVar("T")
P = ParamSpec("P")


@dataclass
class Order:
    id: int
    tags: list[str]


@dataclass
class Parcel:
    grams: int


@dataclass
class Special(Order):
    note: str = ""


@dataclass
class Growing:
    n: int

    def __post_init__(self) -> None:
        self.n += 1


@dataclass
class Derived:
    n: int
    twice: int = field(init=False, default=0)
    cache: dict[str, int] = field(init=False, compare=False, default_factory=dict)


@dataclass
class Needs:
    n: int
    more: InitVar[int] = 1


class Left(msgspec.Struct):
    a: int


class Right(msgspec.Struct):
    b: int


class TaggedLeft(msgspec.Struct, tag=True):
    a: int


class TaggedRight(msgspec.Struct, tag=True):
    a: Decimal | None


class Tree(msgspec.Struct):
    value: Decimal
    below: "list[Tree]" = []


class Renamed(msgspec.Struct, rename="camel"):
    unit_price: float


class Box(msgspec.Struct, Generic[T]):
    content: T


class Color(enum.Enum):
    RED = "r"


class Pair(enum.Enum):
    BOTH = (1, 2)


class Options(TypedDict):
    a: int
    b: NotRequired[str]


class Place(NamedTuple):
    x: int
    name: str = ""


class Aliased(BaseModel):
    user_name: str = Field(alias="userName")


class TwoAliases(BaseModel):
    user: str = Field(validation_alias="U", serialization_alias="s")


class Holder(BaseModel):
    inner: list[Aliased]
    two: TwoAliases | None = None


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.a


class Hiding(BaseModel):
    a: int
    b: int = Field(5, exclude=True)
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


class Secret(BaseModel):
    word: SecretStr


class Bag(BaseModel):
    tags: set[str]
    more: dict[str, list[frozenset[str]]] = {}


class Unchecked(BaseModel):
    """pydantic does not look at defaults."""

    model_config = ConfigDict(use_enum_values=True, extra="allow")
    rate: float = 0
    tax: Decimal = "0.19"  # type: ignore[assignment]
    since: date = "2026-01-01"  # type: ignore[assignment]
    tags: set[str] = []  # type: ignore[assignment]
    parts: list[str] = ()  # type: ignore[assignment]
    inner: Computed | None = {"a": 1}  # type: ignore[assignment]
    color: Color = Color.RED
    more: Any = None


class Numbers(RootModel[list[float]]):
    pass


def there(annotation: Any, value: Any) -> Any:
    """What a worker has, of a value that was enqueued."""

    def f(a: Any) -> None: ...

    f.__annotations__["a"] = annotation
    call = codec.decode(Shape(f).pack("t", (value,), {}))
    [came], _ = Shape(f).fit(call.args, call.kwargs)
    return came


@pytest.mark.parametrize(
    ("annotation", "value", "says"),
    [
        (Order, Order("seven", ["a"]), "Expected `int`, got `str` - at `$.id`"),  # type: ignore[arg-type]
        (Order, Order(7, None), "got `null` - at `$.tags`"),  # type: ignore[arg-type]
        (Left, Left("x"), "Expected `int`, got `str`"),  # type: ignore[arg-type]
        (Renamed, Renamed("x"), "Expected `float`, got `str`"),  # type: ignore[arg-type]
        (Place, Place("x"), "Expected `int`, got `str`"),  # type: ignore[arg-type]
        (Aliased, Aliased.model_construct(user_name=5), "valid string"),
        (Growing, Growing(1), "this int would arrive with another value, at `$.n`"),
        (Order | None, Special(1, []), "Special would arrive as Order"),
        (Parcel, Order(1, []), "missing required field `grams`"),
        (str, uuid4(), "UUID would arrive as str"),
        (list[str], ["a", date(2026, 1, 1)], r"date would arrive as str, at `$[1]`"),
        (dict[int | str, int], {1: 1}, "int would arrive as str"),
        (dict[str, int], {1: 1}, "int would arrive as str"),
        (dict[str, float], {"a": Decimal(1)}, "Expected `float`, got `str`"),
        (float, 2**53 + 1, "int would arrive as float"),
        (datetime, datetime(1800, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), "this datetime would arrive with another value"),
        (Parcel, {"grams": 5, "wide": 3}, "Parcel has no 'wide'"),
        (dict[str, Any], Left(1), "Left would arrive as dict"),
        (Secret, Secret(word=SecretStr("hunter2")), "this Secret would arrive with another value, at `$.word`"),
        (list[Hiding], [Hiding(a=1, b=9)], "this Hiding would arrive with another value, at `$[0].b`"),
        (Unchecked, Unchecked(more=uuid4()), "this Unchecked would arrive with another value, at `$.more`"),
        (Unchecked, Unchecked(more=[Decimal(1)]), "this Unchecked would arrive with another value, at `$.more`"),
        (Unchecked, Unchecked.model_validate({"other": date(2026, 1, 1)}), "this Unchecked would arrive with another value, at `$.other`"),
        (Hiding | None, Left(1), "Left would arrive as Hiding"),
    ],
)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_what_would_arrive_as_something_else_is_refused_where_it_is_given(annotation: Any, value: Any, says: str) -> None:
    with pytest.raises(TypeError) as raised:
        there(annotation, value)
    assert str(raised.value).startswith("task t: argument 'a' does not fit: ") and says in str(raised.value)


same = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Order, Order(7, ["a"])), (Order | None, None), (Derived, Derived(1)), (list[Left | None], [Left(1), None]),
        (TaggedLeft | TaggedRight, TaggedRight(Decimal(1))), (TaggedLeft | TaggedRight, TaggedLeft(1)),
        (Tree, Tree(Decimal(1), [Tree(Decimal(2), [Tree(Decimal(3))])])), (Renamed, Renamed(1.5)), (Box[int], Box(1)), (Place, Place(1, "x")),
        (Options, {"a": 1}), (Color, Color.RED), (Literal["a", 1], "a"), (dict[Color, list[Decimal]], {Color.RED: [Decimal("1.10")]}),
        (Decimal | float, Decimal("1.5")), (Decimal | float, 1.5), (Decimal | int, Decimal(2)), (bytes | int, b"\xd7m\xf8"),
        (set[UUID], {UUID(int=1)}), (frozenset[Decimal], frozenset({Decimal(1)})), (dict[UUID, tuple[int, ...]], {UUID(int=1): (1, 2)}),
        (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5)))), (datetime | None, datetime(2026, 1, 1)),
        (timedelta, timedelta(microseconds=1)), (Any, None), (Mapping[str, int], {"a": 1}), (Sequence[float], [1.5]), (T, 5),
        (Aliased, Aliased(userName="x")), (TwoAliases, TwoAliases(U="x")), (Computed, Computed(a=1)), (Hiding, Hiding(a=1)),
        (Holder, Holder(inner=[Aliased(userName="x")], two=TwoAliases(U="y"))), (Bag, Bag(tags={"a", "b"})), (Numbers, Numbers([1.5])),
    ],
)  # fmt: skip
def test_what_is_accepted_arrives_as_it_was(annotation: Any, value: Any) -> None:
    came = there(annotation, value)
    assert came == value and type(came) is type(value)


@pytest.mark.parametrize(
    ("annotation", "value", "came"),
    [
        (float, 5, 5.0),
        (list[float], (1, 2), [1.0, 2.0]),
        (Sequence[Order], (Order(1, []),), [Order(1, [])]),
        (Order, {"id": 1, "tags": []}, Order(1, [])),
        (TaggedLeft | TaggedRight, {"type": "TaggedLeft", "a": 1}, TaggedLeft(1)),
        (Aliased, {"userName": "x"}, Aliased(userName="x")),
        (UUID, str(UUID(int=1)), UUID(int=1)),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (bytes, bytearray(b"x"), b"x"),
        (Any, {1: (UUID(int=1),)}, {"1": [str(UUID(int=1))]}),
        (list, [(1, 2)], [[1, 2]]),
        (list[Any], [(1, 2)], [[1, 2]]),
        (datetime, same, same.astimezone(UTC)),
    ],
)
def test_a_value_in_its_json_form_comes_in_the_annotated_type(annotation: Any, value: Any, came: Any) -> None:
    assert there(annotation, value) == came


def test_a_field_that_its_class_derives_arrives_too() -> None:
    value = Derived(1)
    value.twice, value.cache = 9, {"a": 1}
    assert vars(there(Derived, value)) == {"n": 1, "twice": 9, "cache": {"a": 1}}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_models_defaults_need_not_be_of_their_types() -> None:
    came = there(Unchecked, Unchecked.model_validate({"more": [1, {"a": None}], "other": 1.5}))
    assert (came.rate, came.tax, came.since, came.tags, came.parts) == (0.0, Decimal("0.19"), date(2026, 1, 1), set(), [])
    assert (came.inner, came.color, came.more, came.other) == (Computed(a=1), "r", [1, {"a": None}], 1.5)


def test_an_aliased_model_may_come_by_its_alias_from_elsewhere() -> None:
    def f(a: Aliased) -> None: ...

    assert Shape(f).fit([{"userName": "x"}], {}) == ([Aliased(userName="x")], {})


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (Order | Parcel, "more than one dataclass"),
        (Left | Right, "must be tagged.*`tag=True`"),
        (Aliased | Computed, "more than one custom type"),
        (list[str | UUID], "more than one str-like type"),
        (str | bytes, "more than one str-like type"),
        (datetime | date, "more than one str-like type"),
        (Needs, "`InitVar` fields"),
        (Pair, "all str or all int"),
        (Iterable[int], "Iterable is no type"),
        (dict[str, list[Callable[[], None]]], "Callable is no type"),
    ],
)
def test_a_type_that_no_argument_can_have_is_told_when_the_worker_starts(annotation: Any, says: str) -> None:
    app = MQueue("http://127.0.0.1:9")

    def given(n: int, order: Any) -> None: ...

    given.__annotations__["order"] = annotation
    task = app.task(name="t")(given)
    for check in (lambda: prepare(app), lambda: task.enqueue(1, None)):
        with pytest.raises((WorkerError, TypeError), match=rf"^task t: .*given: parameter 'order': .*{says}.*Any"):
            check()


def test_what_is_never_an_argument_may_have_any_type() -> None:
    app = MQueue("http://127.0.0.1:9")

    class Session:
        pass

    def local(n: int, session: Session | None = None) -> Session: ...  # type: ignore[empty-body]

    def either(n: int, session: Session | str = "") -> None: ...

    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None: ...

    local.__annotations__ |= {"session": Session | None, "return": Session}
    either.__annotations__ |= {"session": Session | str}
    app.task(name="either")(either)
    task = app.task(name="local")(local)
    app.task(name="wrapped")(wrapper)
    prepare(app)
    assert task.message(1).payload == b'{"task":"local","args":[1],"kwargs":{}}'
    with pytest.raises(TypeError, match=r"argument 'session'.*Session has no JSON form"):
        task.message(1, Session())
    app.task(name="kept", result=True)(local)
    with pytest.raises(WorkerError, match=r"^task kept: .*local: what it returns: .*Session is no type"):
        prepare(app)


def test_keyword_arguments_may_be_those_of_a_typed_dict() -> None:
    app = MQueue("http://127.0.0.1:9")

    @app.task(name="t")
    def f(n: int = 0, **options: Unpack[Options]) -> None: ...

    f.message(a=1)
    f.message(1, a=1, b="x")
    for wrong, says in (({}, "missing a required argument: 'a'"), ({"a": "1"}, "'a' does not fit"), ({"a": 1, "c": 1}, "unexpected .*'c'")):
        with pytest.raises(TypeError, match=says):
            f.message(**wrong)  # type: ignore[call-arg]
    assert f.shape.fit([], {"a": "1"}) == ([], {"a": 1})

    @app.task(name="twice")
    def twice(a: int, **options: Unpack[Options]) -> None: ...  # type: ignore[misc]

    class Wrong(TypedDict):
        x: Order | Parcel

    def unsupported(**options: Any) -> None: ...

    unsupported.__annotations__["options"] = Unpack[Wrong]
    task = app.task(name="unsupported")(unsupported)
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^task unsupported: .*parameter 'x': "):
            task.message(x=Order(1, []))
    with pytest.raises(TypeError, match=r"^task twice: .*twice: its .*Options.* cannot be read: duplicate parameter name: 'a'"):
        twice.message(1)
    with pytest.raises(Misfit, match="missing"):
        f.shape.fit([], {"b": "x"})
    assert f.options(unique="waiting").message(a=1).unique_key == f.options(unique="waiting").message(0, a=1).unique_key


def test_unique_keys_are_of_what_the_worker_has() -> None:
    app = MQueue("http://127.0.0.1:9")

    @app.task(unique="waiting")
    def f(x: float, y: float = 1, order: Order = Order(1, []), when: datetime | None = None) -> None: ...

    same = [f.message(1), f.message(1.0), f.message(1.0, 1.0), f.message(x=1, order=Order(1, [])), f.message(1, 1, {"id": 1, "tags": []})]  # type: ignore[arg-type]
    assert len({item.unique_key for item in same}) == 1
    assert f.message(2).unique_key != same[0].unique_key


def test_unique_keys_are_the_same_in_every_process() -> None:
    code = """
from test_worker_arguments import Bag
from mqueue import MQueue
app = MQueue("http://127.0.0.1:9")
def f(bag: Bag, any, some: set[str]): ...
names = {"a", "b", "c", "d", "e"}
print(app.task(name="t", unique="waiting")(f).message(Bag(tags=names, more={"x": [names]}), [names], names).unique_key)
"""
    run = [sys.executable, "-c", code]
    path = ":".join(filter(None, sys.path))
    keys = {
        subprocess.run(run, env={"PYTHONHASHSEED": seed, "PYTHONPATH": path}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2", "3", "4")
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("annotation", "value", "says"),
    [
        (Order, Order("x", []), "Expected `int`, got `str`"),  # type: ignore[arg-type]
        (Growing, Growing(1), "another value, at `[$].n`"),
        (Hiding, Hiding(a=1, b=9), "another value, at `[$].b`"),
        (str, uuid4(), "UUID would arrive as str"),
    ],
)
def test_a_result_that_would_come_back_as_something_else_is_refused(annotation: Any, value: Any, says: str) -> None:
    def f() -> Any: ...

    f.__annotations__["return"] = annotation
    with pytest.raises(BadResult, match=f"the result of .*f cannot be kept: .*{says}"):
        Shape(f, returns=True).pack_result(value)


def test_a_result_comes_back_as_it_was() -> None:
    def f() -> Any: ...

    for annotation, value in ((Aliased, Aliased(userName="x")), (Decimal | float, Decimal("1.5")), (None, None), (dict, {"a": [1]})):
        f.__annotations__["return"] = annotation
        shape = Shape(f, returns=True)
        assert shape.unpack_result(shape.pack_result(value)) == value
