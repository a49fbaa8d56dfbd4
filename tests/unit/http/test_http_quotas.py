"""Quotas: all or nothing, per namespace, and never in the way when their storage fails."""

import pytest
from structlog.testing import capture_logs

from mqueue.broker.http import quotas as module
from mqueue.broker.http.quotas import Quotas
from mqueue.errors import QuotaExceeded
from mqueue.message import REQUEST_KEY_S, RequestKey

MEMORY = "async+memory://"


class FakeClock:
    now = 0.0

    def wall_us(self) -> int:
        return int(self.now * 1e6)

    def monotonic(self) -> float:
        return self.now


async def test_all_or_nothing_over_namespaces() -> None:
    quotas = Quotas({"a": 10, "b": 2}, MEMORY)
    await quotas.take({"a": 4, "b": 1, "free": 1000})
    with pytest.raises(QuotaExceeded, match="namespace b") as refused:
        await quotas.take({"a": 6, "b": 2})
    assert refused.value.retry_after is not None
    assert 1 <= refused.value.retry_after <= 60
    await quotas.take({"a": 6, "b": 1})
    with pytest.raises(QuotaExceeded, match="namespace a"):
        await quotas.take({"a": 1})


async def test_more_at_once_than_the_quota() -> None:
    with pytest.raises(QuotaExceeded, match="3 messages at once"):
        await Quotas({"a": 2}, MEMORY).take({"a": 3})


async def test_a_storage_that_fails_is_left_alone_and_logged_once() -> None:
    clock = FakeClock()
    quotas = Quotas({"a": 1}, "async+redis://127.0.0.1:1", clock)
    with capture_logs() as logs:
        for _ in range(3):
            clock.now += module.BLIND_S + 1
            await quotas.take({"a": 1})
        assert len(logs) == 1
        clock.now += module.LOG_EVERY_S
        await quotas.take({"a": 1})
        assert len(logs) == 2


async def test_after_a_failure_the_storage_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    quotas = Quotas({"a": 1}, MEMORY, clock)
    asked = 0

    async def fail(counts: object) -> None:
        nonlocal asked
        asked += 1
        raise OSError

    monkeypatch.setattr(quotas, "_take", fail)
    await quotas.take({"a": 1})
    await quotas.take({"a": 1})
    assert asked == 1
    clock.now += module.BLIND_S
    await quotas.take({"a": 1})
    assert asked == 2


async def test_namespaces_without_a_quota_never_touch_the_storage() -> None:
    quotas = Quotas({"a": 1}, "async+redis://127.0.0.1:1")
    with capture_logs() as logs:
        await quotas.take({"free": 1})
    assert logs == []
    await Quotas({}, "not even a storage").take({"free": 1})


async def test_a_request_is_charged_once_while_its_key_is_known() -> None:
    clock = FakeClock()
    quotas = Quotas({"a": 1}, MEMORY, clock)
    first = RequestKey("k", b"body")
    with pytest.raises(QuotaExceeded):
        await quotas.take({"a": 2}, first)  # not charged, so not remembered
    await quotas.take({"a": 1}, first)
    clock.now += REQUEST_KEY_S - 1
    await quotas.take({"a": 1}, RequestKey("k", b"body"))
    for another in (None, RequestKey("k", b"other"), RequestKey("l", b"body")):
        with pytest.raises(QuotaExceeded):
            await quotas.take({"a": 1}, another)
    clock.now += 1
    with pytest.raises(QuotaExceeded):
        await quotas.take({"a": 1}, first)


async def test_requests_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAID_MAX", 2)
    quotas = Quotas({"a": 3}, MEMORY)
    for key in "klm":
        await quotas.take({"a": 1}, RequestKey(key, b"body"))
    await quotas.take({"a": 1}, RequestKey("l", b"body"))
    with pytest.raises(QuotaExceeded):
        await quotas.take({"a": 1}, RequestKey("k", b"body"))
