"""Which heads are known by their bytes, and which are left to the parser."""

import pytest

from mqueue.broker.http.exchange import heads
from mqueue.broker.http.exchange.heads import Heads

LINES = [b"POST /ack HTTP/1.1", b"Host: x", b"Content-Length: 2", b"", b"{}"]
WHOLE = b"\r\n".join(LINES)


def scope(path: str = "/ack", version: str = "1.1", **headers: bytes) -> dict[str, object]:
    return {"path": path, "http_version": version, "headers": [(b"host", b"x"), *((name.encode(), value) for name, value in headers.items())]}


LENGTH = {"content-length": b"2"}


@pytest.mark.parametrize(("data", "found"), [(WHOLE, b"{}"), (WHOLE[:-2] + b"[]", b"[]")])
def test_a_head_that_came_before_is_known(data: bytes, found: bytes) -> None:
    known, told = Heads({"/ack"}), scope(**LENGTH)
    known.remember(WHOLE, told)
    assert known.find(data) == (told, found)


def test_what_is_of_one_request_or_connection_is_not_kept() -> None:
    known, told = Heads({"/ack"}), scope(**LENGTH) | {"extensions": {}}
    known.remember(WHOLE, told)
    told["cut"] = True
    assert known.find(WHOLE) == (scope(**LENGTH), b"{}")


def test_one_that_says_what_is_so_anyway_is_known() -> None:
    known, told = Heads({"/ack"}), scope(**LENGTH | {"connection": b"Keep-Alive"})
    known.remember(WHOLE, told)
    assert known.find(WHOLE) == (told, b"{}")


@pytest.mark.parametrize("data", [b"", WHOLE[:-1], WHOLE + b"\n", WHOLE + WHOLE, WHOLE[1:], b"\r\n" + WHOLE, WHOLE.replace(b"x", b"y")])
def test_what_is_not_quite_the_same_is_not(data: bytes) -> None:
    known = Heads({"/ack"})
    known.remember(WHOLE, scope(**LENGTH))
    assert known.find(data) is None


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (WHOLE, scope("/dlq", **LENGTH)),
        (WHOLE, scope()),
        (WHOLE, scope(version="1.0", **LENGTH)),
        (WHOLE, scope(**LENGTH | {"transfer-encoding": b"chunked"})),
        (WHOLE, scope(**LENGTH | {"expect": b"100-continue"})),
        (WHOLE, scope(**LENGTH | {"connection": b"close"})),
        (WHOLE + b"POST", scope(**LENGTH)),
        (b"\n".join(LINES), scope(**LENGTH)),
        (b"\n".join(LINES[:2]) + b"\r\n" + b"\r\n".join(LINES[2:]), scope(**LENGTH)),
        (WHOLE.replace(b"x", b"x" * heads.HEAD_MAX), scope(**LENGTH)),
        (WHOLE.replace(b"{}", b" " * heads.BODY_MAX), scope(**{"content-length": b"%d" % heads.BODY_MAX})),
    ],
    ids=["another path", "no length", "1.0", "chunks", "it expects", "it closes", "more", "LF", "one LF", "a long head", "a large body"],
)
def test_what_may_mean_more_is_left_to_the_parser(data: bytes, told: dict[str, object]) -> None:
    known = Heads({"/ack"})
    known.remember(data, told)
    assert known.find(data) is None


def test_who_is_full_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "KNOWN_MAX", 3)
    known = Heads({"/ack"})
    for n in range(10):
        known.remember(WHOLE.replace(b"x", b"%d" % n), scope(**LENGTH))
        assert len(known._known) <= 3
    assert known.find(WHOLE.replace(b"x", b"9")) is not None
