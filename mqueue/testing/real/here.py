"""This stands in for a Client while a test has a namespace: whatever namespace it is told, it takes the test's.

So what asks a broker on behalf of a task (a handle, Django's results) finds what the test has enqueued.
"""

import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from mqueue import wire
from mqueue.client import AsyncClient, Client


class Here:
    """It has the methods of `Client`, and takes this `namespace`."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.url = client.url
        self._client = client
        self.namespace = namespace

    def close(self) -> None:
        """The test's own client is open for as long as the test."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"Client has no {name}")
        return moved(getattr(self._client, name), self.namespace)


class AsyncHere:
    """It has the methods of `AsyncClient`, each with a connection of its own: a test may have several event loops."""

    def __init__(self, url: str, token: str | None, namespace: str) -> None:
        self.url = url
        self._token = token
        self.namespace = namespace

    async def close(self) -> None:
        """Nothing is open."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(AsyncClient, name):
            raise AttributeError(f"AsyncClient has no {name}")

        async def call(*args: Any, **kwargs: Any) -> Any:
            async with AsyncClient(self.url, self._token) as client:
                return await moved(getattr(client, name), self.namespace)(*args, **kwargs)

        return call


def moved(method: Callable[..., Any], namespace: str) -> Callable[..., Any]:
    """Returns a method of a client that takes this namespace for any other."""
    signature = inspect.signature(method)

    def call(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        for name in signature.parameters:
            if name == "namespace":
                given.arguments[name] = namespace
            elif name == "namespaces":
                given.arguments[name] = [namespace]
            elif name == "options":
                given.arguments[name] = {**given.arguments.get(name, {}), "namespace": namespace}
            elif name in given.arguments:
                given.arguments[name] = _moved(given.arguments[name], namespace)
        return method(*given.args, **given.kwargs)

    return call


def _moved(value: Any, namespace: str) -> Any:
    """Returns a request that says this namespace of its messages."""
    if isinstance(value, list | tuple):
        return [_moved(each, namespace) for each in value]
    if isinstance(value, wire.Poll):
        value = msgspec.structs.replace(value, settle=_moved(value.settle, namespace))
    if isinstance(value, msgspec.Struct) and "namespace" in value.__struct_fields__:
        return msgspec.structs.replace(value, namespace=namespace)
    return value
