"""Tasks as Django has them."""

import asyncio

from django.tasks import task
from shop.models import Note

from mqueue import RateLimited, Snooze
from tests.waiting import wait_until

in_the_middle, go_on = asyncio.Event(), asyncio.Event()  # of `count` and `wait`


@task(queue_name="emails", priority=10)
def send(to: str) -> str:
    Note.objects.create(text=f"sent to {to}")
    return to


@task
async def send_async(to: str) -> None:
    await Note.objects.acreate(text=f"sent async to {to}")


@task(takes_context=True)
def attempt(context, fail: str = "") -> None:
    Note.objects.create(text=f"attempt {context.attempt} of {context.task_result.id}")
    if fail == "snooze" and Note.objects.count() == 1:
        raise Snooze(60)
    if fail == "error":
        raise RateLimited("not yet", retry_after=1)


@task(takes_context=True)
async def attempt_async(context) -> None:
    raise ValueError(f"attempt {context.attempt}")


@task(queue_name="emails")
def add(a: int, b: int = 1) -> dict[str, object]:
    return {"sum": (a + b,), "note": None}


@task
def returns(what: str) -> object:
    return {"set": {1}, "nan": float("nan"), "long": "x" * 1_100_000}[what]


@task
def hold(name: str) -> None:
    """Returns when there is a note of that name."""
    wait_until(Note.objects.filter(text=name).exists, f"a note {name}")


@task
async def count(says: bool = True) -> int:
    """Notes. It has read one when it says so and waits."""
    seen = 0
    async for _ in Note.objects.order_by("id").aiterator(chunk_size=1):
        seen += 1
        if seen == 1 and says:
            in_the_middle.set()
            await go_on.wait()
    return seen


@task
async def wait() -> None:
    """It has asked the database when it says that it waits."""
    await Note.objects.acount()
    in_the_middle.set()
    await go_on.wait()


@task(backend="immediate")
def elsewhere() -> str:
    return "ran"
