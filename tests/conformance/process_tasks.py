"""Tasks that run in processes of their own, which import this module."""

from mqueue import MQueue

app = MQueue("http://127.0.0.1:9", "no", namespace="not-this-one")


@app.task(topic="apart", name="parent", executor="process", max_retries=0)
def parent(numbers: list[int]) -> None:
    app.enqueue_many([child.message(number) for number in numbers])
    if not child.handle(child.enqueue(0).id).status():
        raise LookupError("what was enqueued here is not seen from here")


@app.task(topic="apart", name="async-parent", executor="process", max_retries=0)
async def async_parent(number: int) -> None:
    handle = await child.enqueue_async(number)
    if not await handle.status_async():
        raise LookupError("what was enqueued here is not seen from here")


@app.task(topic="apart", name="child", result=True)
def child(number: int) -> int:
    return number
