"""Deleting dead letters waits for those of its own topic only."""

from types import SimpleNamespace
from typing import Any

from mqueue.broker.engine.dead_letters import DeadLetters, first_page
from mqueue.broker.format import record
from mqueue.clock import SystemClock
from mqueue.lifecycle import State
from mqueue.message import PAGE_MAX, DeadLetter, TopicName


def dead(id: int, topic: bytes) -> bytes:
    made = record.new(priority=0, due=0, id=id, expires=0, max_retries=0, lease_ms=1, node=1, sequence=1, size=0, topic=topic, unique=False)
    return State.DEAD.value + made[1:]


async def test_the_ids_of_another_topic_are_gone_at_once() -> None:
    """Otherwise the time it takes would tell whether they are dead."""
    flushes = []
    records = {1: dead(1, b"mine/a"), 2: dead(2, b"theirs/a")}

    async def look(id: bytes) -> tuple[bytes | None, None, None]:
        return records.get(int.from_bytes(id)), None, None

    async def hurry_flush() -> None:
        flushes.append(1)
        del records[1]

    async def delete_dead(name: TopicName, ids: list[int]) -> set[int]:
        return {1} & {*ids}

    shard: Any = SimpleNamespace(
        mode="hot", cache=SimpleNamespace(record=look), store=SimpleNamespace(delete_dead=delete_dead), hurry_flush=hurry_flush
    )
    slots: Any = SimpleNamespace(shard=lambda name: 0)
    letters = DeadLetters([shard], slots, SystemClock())
    assert await letters.delete("mine", "a", [2]) == ["gone"]
    assert not flushes
    assert await letters.delete("mine", "a", [1, 2]) == ["ok", "gone"]
    assert len(flushes) == 1


def letter(id: int, size: int = 1) -> DeadLetter:
    return DeadLetter(id, "n", "t", 0, b"x" * size, None, 1, None, 0, 0)


def test_a_page_ends_with_its_bytes_and_has_one_letter_at_least() -> None:
    large = [letter(id, PAGE_MAX // 2) for id in (3, 1, 2)]
    assert [each.id for each in first_page(large, 10, None)] == [1, 2]
    assert [each.id for each in first_page([letter(1, 2 * PAGE_MAX), letter(2)], 10, None)] == [1]


def test_no_letter_hides_what_the_other_store_has_left_out() -> None:
    """One store has 1 to 3, and more that it left out; the other has 2 and 9: 9 comes after those."""
    assert [each.id for each in first_page([letter(id) for id in (1, 2, 3, 9)], 10, 3)] == [1, 2, 3]
    assert [each.id for each in first_page([letter(id) for id in (1, 2, 3, 9)], 2, 3)] == [1, 2]
