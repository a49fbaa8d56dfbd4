"""A field of a message has its place wherever messages are made or shown; `tests/fields.py` says where it has none."""

import inspect
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mqueue import Current, wire
from mqueue.client import AsyncClient, Client
from mqueue.client.protocol import EnqueueOptions
from tests import fields

ITEM = fields.of(wire.EnqueueItem)

ARGUMENTS = {"topic", "payload"}  # of `Client.enqueue`, before its options

NOT_CURRENT = {
    "payload": "its handler gets it as arguments",
    "deliver_after": "a handler that runs is past it",
    "receipt": "of the lease: the worker keeps it",
    "lease_expires_at": "of the lease: the worker renews it",
    "lease": "of the lease: the worker renews it",
}

# On a loop, a client's sessions may have to be made anew between calls.
ON_A_LOOP_ALONE = {"renew", "drop_old"}


def test_every_field_of_an_enqueue_has_a_value() -> None:
    missing = ITEM.keys() - fields.VALUES.keys()
    assert not missing, f"give a value that is not its default to {sorted(missing)} in tests/fields.py"
    assert fields.VALUES.keys() == ITEM.keys()
    assert [name for name, value in fields.VALUES.items() if value == ITEM[name]] == []
    made = fields.ways()
    assert all(any(getattr(item, name) == value for item in made) for name, value in fields.VALUES.items())


@pytest.mark.parametrize("kind", fields.NOT_SHOWN, ids=lambda kind: kind.__name__)
def test_every_field_of_an_enqueue_is_shown_or_listed(kind: type[msgspec.Struct]) -> None:
    assert ITEM.keys() - fields.of(kind).keys() == fields.NOT_SHOWN[kind].keys()


def test_a_difference_is_seen() -> None:
    item = fields.ways()[0]
    values = {name: getattr(item, name, None) for name in fields.of(wire.Message)}
    assert fields.differences(item, wire.Message(**values)) == {}
    for name in ITEM.keys() & values.keys():
        default = None if ITEM[name] is msgspec.NODEFAULT else ITEM[name]
        assert fields.differences(item, wire.Message(**values | {name: default})).keys() == {name}


def test_every_field_of_an_enqueue_is_an_option_or_an_argument() -> None:
    assert EnqueueOptions.__annotations__.keys() == ITEM.keys() - ARGUMENTS
    for client in (Client, AsyncClient):
        assert inspect.signature(client.enqueue).parameters.keys() == ARGUMENTS | {"self", "options"}


def test_a_handler_can_ask_for_every_field_of_its_message() -> None:
    asked = {name for name, value in vars(Current).items() if isinstance(value, property)}
    assert fields.of(wire.Message).keys() - asked == NOT_CURRENT.keys()


def test_both_clients_have_the_same_calls() -> None:
    blocking, on_a_loop = calls(Client), calls(AsyncClient)
    assert on_a_loop.keys() - blocking.keys() == ON_A_LOOP_ALONE
    assert blocking.keys() - on_a_loop.keys() == set()
    assert {name: on_a_loop[name] for name in blocking} == blocking


def calls(client: type) -> dict[str, dict[str, inspect.Parameter]]:
    """Returns the parameters of each public method: names, kinds, defaults and types."""
    methods: dict[str, Callable[..., Any]] = {name: value for name, value in vars(client).items() if inspect.isfunction(value)}
    return {name: dict(inspect.signature(method).parameters) for name, method in methods.items() if not name.startswith("_")}
