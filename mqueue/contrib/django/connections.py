"""This decides whose database connections a job uses. Django keeps them by thread.

A `def` task has a thread of the worker, which keeps its connections as long as CONN_MAX_AGE says, as with requests.
An `async def` task asks the database through one thread of asgiref's, which all code of the loop shares together
with its connection. So that no job ends or changes the connection of another, each gets a thread of its own, as
each request under ASGI does.

In a test jobs may run in the test's own thread: the connections that it uses stay as they are.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections


@contextmanager
def renewed() -> Iterator[None]:
    """It surrounds a job in a thread as Django surrounds a request."""
    lent = [connection for connection in _all_but([]) if connection.in_atomic_block]
    for connection in _all_but(lent):
        connection.queries_log.clear()
        connection.close_if_unusable_or_obsolete()
    try:
        yield
    finally:
        for connection in _all_but(lent):
            connection.close_if_unusable_or_obsolete()


@asynccontextmanager
async def own() -> AsyncIterator[None]:
    """It surrounds a job on the loop. Its connections end with it, since its thread does."""
    async with ThreadSensitiveContext():
        lent = await sync_to_async(_all_but)([])  # none, unless an `async_to_sync` around it lends its thread
        try:
            yield
        finally:
            await sync_to_async(_close_all_but)(lent)


def _close_all_but(lent: list[Any]) -> None:
    for connection in _all_but(lent):
        connection.close()


def _all_but(lent: list[Any]) -> list[Any]:
    """Returns the connections of this thread that are not `lent`."""
    return [connection for connection in connections.all(initialized_only=True) if connection not in lent]
