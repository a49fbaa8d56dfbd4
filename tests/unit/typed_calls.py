"""Read by `mypy --strict`, never run: each line with `# error: CODE` is one, and no other."""

from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type
from zoneinfo import ZoneInfo

from mqueue import Current, Handle, LogContext, Middleware, MQueue, Retry, enqueue_many, task
from mqueue.wire import EnqueueItem, Status


class Quiet(Middleware):
    def run(self, job: Current) -> AbstractContextManager[None]:
        return nullcontext(print(job.id, job.metadata))


app = MQueue("http://127.0.0.1:8080", "token", namespace="shop", middleware=[LogContext(), Quiet()], timeout=5, connections=20)
MQueue(timeout="5")  # error: arg-type
MQueue(time_out=5)  # error: call-arg


@task(topic="emails", priority=5)
def send(to: str, *, subject: str = "") -> int:
    return len(to) + len(subject)


@task(result=True, result_ttl=60)
async def fetch(mailbox: str, limit: int = 10) -> list[str]:
    return [mailbox] * limit


@app.task(name="plain", max_retries=3, lease=60.0)
def plain() -> None: ...


@app.task(executor="process", time_limit=3, memory_limit_mb=500, retry=Retry(max=3, base=0.5, on=(OSError,), never=(FileNotFoundError,)))
def heavy(n: int) -> None: ...


assert_type(send("ada", subject="hi"), int)
assert_type(send.enqueue("ada", subject="hi"), Handle[int])
assert_type(send.enqueue("ada").result(timeout=1), int)
assert_type(send.handle(5), Handle[int])
assert_type(send.options(namespace="n").handle(5).status(), Status | None)
assert_type(fetch.enqueue("box"), Handle[list[str]])
assert_type(fetch.handle(5).result(), list[str])
assert_type(fetch.options(delay=1).enqueue("box").result(), list[str])
assert_type(send.message("ada"), EnqueueItem)
assert_type(enqueue_many([send.message("ada"), fetch.message("box", limit=3)]), list[Handle[Any]])
send.options(priority=1, delay=2.5, ttl=60, idempotency_key="k", max_retries=0, lease=5, metadata={"a": 1}, namespace="n").enqueue("ada")
send.options(at=datetime(2030, 1, 1, tzinfo=UTC)).enqueue("ada", subject="later")
plain.enqueue()


@app.task(cron="*/5 * * * *", timezone="Europe/Berlin", catch_up="all")
def often(n: int = 3) -> None: ...


@app.task(every=timedelta(minutes=5))
async def beat() -> None: ...


@app.task(cron="0 4 * * *", args=("ada",), kwargs={"subject": "morning"})
def greet(to: str, *, subject: str) -> None: ...


async def on_a_loop() -> None:
    assert_type(await fetch("box"), list[str])
    assert_type(await fetch.enqueue_async("box", limit=3), Handle[list[str]])
    assert_type(await fetch.handle(5).result_async(), list[str])
    assert_type(await send.options(delay=1).enqueue_async("ada"), Handle[int])
    await fetch.enqueue_async("box", "3")  # error: call-overload


@app.task(cron="0 4 * * *", timezone=ZoneInfo("Europe/Berlin"), lease=timedelta(minutes=1), retry=Retry(on=[OSError], never=KeyError))
def of(self: int, name: str = "") -> None: ...


of.enqueue(self=5, name="x")
of.options(delay=timedelta(hours=1), ttl=timedelta(days=1)).enqueue(self=5)
of.message(itself=5)  # error: call-arg


send.enqueue()  # error: call-arg
send.enqueue(5)  # error: arg-type
send.enqueue("ada", "hi")  # error: call-arg
send.enqueue("ada", topic="hi")  # error: call-arg
send.message("ada", subject=3)  # error: arg-type
send.options(delay=1).enqueue(5)  # error: arg-type
send.options(dealy=1)  # error: call-arg
send.options(priority="high")  # error: arg-type
send("ada", subject=3)  # error: arg-type
plain.enqueue(1)  # error: call-arg
app.task(every=5, args="ada")  # error: call-overload
app.task(executor="thread")  # error: call-overload
Retry(on=(3,))  # error: arg-type
app.task(topic=3)  # error: call-overload
app.task(every=30, catch_up="never")  # error: call-overload
app.task(topc="emails")  # error: call-overload
app.task(lease="5")  # error: call-overload
app.task(batch=5, executor="process")  # error: call-overload
app.task(batch_wait=5)  # error: call-overload
send.options(delay=1, topic="sms")  # error: call-arg
send.options(ttl="5")  # error: arg-type


@app.task(topic="batches", batch=100, batch_wait=0.5)
def gather(items: list[int]) -> list[Exception | None]:
    return [None for _ in items]


@app.task(topic="more", batch=10)
async def gather_async(items: list[str]) -> None: ...


assert_type(gather([1, 2]), list[Exception | None])
assert_type(gather.enqueue(1), Handle[list[Exception | None]])
gather_async.options(delay=1).enqueue("ada")
gather.enqueue("ada")  # error: arg-type
gather.enqueue([1])  # error: arg-type
gather_async.enqueue(1)  # error: call-overload
