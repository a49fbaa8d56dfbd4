"""Stories of jobs, drained in memory and worked off at the real broker: they end the same way."""

from mqueue import MQueue, Retry, Snooze, current
from mqueue.testing import Manual, TestBroker


def story() -> tuple[MQueue, list[tuple[str, int]]]:
    app, seen = MQueue(), list[tuple[str, int]]()

    @app.task(name="first", topic="t", priority=1)
    def first() -> None:
        seen.append(("first", current().attempt))
        second.options(priority=2).enqueue("x")

    @app.task(name="second", topic="t", retry=Retry(max=2, base=0.05, never=(LookupError,)))
    async def second(what: str) -> None:
        seen.append((what, current().attempt))
        if what == "never":
            raise LookupError
        if current().attempt < 3:
            raise ConnectionError
        if what == "x" and len(seen) < 7:
            raise Snooze(0.05)

    first.enqueue()
    second.options(priority=9).enqueue("never")
    return app, seen


EXPECTED = [("first", 1), ("never", 1), ("x", 1), ("x", 2), ("x", 3), ("x", 3), ("x", 3)]


def chord() -> list[int]:
    """A job that takes the results of others, as the guides for those who come from another queue have it."""
    app, seen = MQueue(), list[int]()

    @app.task(name="weigh", topic="t", result=True)
    def weigh(number: int) -> int:
        return number * 100

    @app.task(name="load", topic="t", max_retries=0)
    def load(parts: list[int]) -> None:
        try:
            weights = [weigh.handle(id).result(timeout=0) for id in parts]
        except TimeoutError:
            raise Snooze(0.2) from None
        seen.append(sum(weights))

    load.enqueue([handle.id for handle in app.enqueue_many([weigh.message(5), weigh.options(delay=1).message(4)])])
    return seen


def test_a_chord_in_memory(mqueue_manual: Manual) -> None:
    seen = chord()
    done = mqueue_manual.drain(to_the_end=True)
    assert (seen, done.done, done.snoozed > 0) == ([900], 3, True)


def test_the_same_chord_on_a_real_broker(mqueue_broker: TestBroker) -> None:
    seen = chord()
    worker = mqueue_broker.run_until_idle()
    assert (seen, worker.counts["ack"], worker.counts["release"] > 0) == ([900], 3, True)


def test_a_story_in_memory(mqueue_manual: Manual) -> None:
    _, seen = story()
    done = mqueue_manual.drain(to_the_end=True, dead_ok=True)
    assert sorted(seen) == EXPECTED
    assert (done.done, done.failed, done.snoozed, done.dead) == (2, 2, 2, 1)


def test_the_same_story_on_a_real_broker(mqueue_broker: TestBroker) -> None:
    _, seen = story()
    worker = mqueue_broker.run_until_idle(concurrency=1)
    assert sorted(seen) == EXPECTED
    assert dict(worker.counts) == {"ack": 2, "nack": 2, "release": 2, "bury": 1}
    [dead] = mqueue_broker.dead_letters("t")
    assert (dead.error or "").startswith("LookupError")


def giving_way() -> list[str]:
    """A job that waits for the others of its topic lets them go first."""
    app, seen = MQueue(), list[str]()

    @app.task(name="wait", topic="t")
    def wait() -> None:
        seen.append("wait")
        if not {"a", "b"} <= {*seen} and len(seen) < 20:
            raise Snooze(0)

    @app.task(name="note", topic="t")
    def note(name: str) -> None:
        seen.append(name)

    app.enqueue_many([wait.message(), note.message("a"), note.message("b")])
    return seen


def test_a_job_that_gives_way_in_memory(mqueue_manual: Manual) -> None:
    seen = giving_way()
    mqueue_manual.drain(to_the_end=True)
    assert seen == ["wait", "a", "b", "wait"]


def test_a_job_that_gives_way_on_a_real_broker(mqueue_broker: TestBroker) -> None:
    seen = giving_way()
    mqueue_broker.run_until_idle(concurrency=1)
    assert seen == ["wait", "a", "b", "wait"]
