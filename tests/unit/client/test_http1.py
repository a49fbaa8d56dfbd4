"""HTTP/1.1 without I/O: a reply is the same in whatever pieces it comes, and what is none is refused; a request is what
it was meant to be.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqueue.client.http1 import Broken, Reply, ReplyReader, Requests

OK = b"HTTP/1.1 200 OK\r\n"
PLAIN = OK + b"Content-Type: application/json\r\nRETRY-after: 7\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3;why=not\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
TRAILED = CHUNKED[:-2] + b"Trailer: one\r\nRetry-After: 9\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + PLAIN
EMPTY = b"HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n"
CLOSING = PLAIN.replace(b"Content-Type", b"Connection: close\r\nContent-Type")
OLD = PLAIN.replace(b"1.1", b"1.0")
UNTIL_CLOSED = OK + b"Content-Type: text/plain\r\n\r\nhello"

WHOLE = {
    "plain": (PLAIN, True),
    "chunked": (CHUNKED, True),
    "trailed": (TRAILED, False),
    "continued": (CONTINUED, True),
    "closing": (CLOSING, False),
    "old": (OLD, False),
}


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Yields `data` in the pieces between these places."""
    edges = [0, *sorted(set(places)), len(data)]
    return (data[begin:end] for begin, end in pairwise(edges) if begin < end)


def read(reader: ReplyReader, pieces: Iterable[bytes]) -> Reply:
    """Returns the reply of these pieces, of which the last makes it whole."""
    replies = [reader.feed(piece) for piece in pieces]
    assert [reply for reply in replies if reply is not None] == replies[-1:]
    assert replies[-1] is not None
    return replies[-1]


@pytest.mark.parametrize("name", WHOLE)
def test_a_reply_is_the_same_cut_anywhere(name: str) -> None:
    data, reusable = WHOLE[name]
    for place in range(len(data)):
        reader = ReplyReader()
        reply = read(reader, cut(data, [place]))
        assert (reply.status, reply.body, reader.reusable) == (200, b"hello", reusable), place
        assert reply.headers.get("Retry-After") == ("7" if b"RETRY" in data else None)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.data())
def test_chunks_in_any_division_and_any_pieces(chunks: list[bytes], data: st.DataObject) -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    sent = OK + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
    places = data.draw(st.lists(st.integers(1, len(sent) - 1)))
    reader = ReplyReader()
    assert read(reader, cut(sent, places)).body == b"".join(chunks)
    assert reader.reusable


@given(st.lists(st.sampled_from([PLAIN, CHUNKED, CONTINUED, EMPTY]), min_size=1, max_size=4), st.data())
def test_one_reply_after_the_other(replies: list[bytes], data: st.DataObject) -> None:
    """Nothing of one is found in the next."""
    reader = ReplyReader()
    for sent in replies:
        reply = read(reader, cut(sent, data.draw(st.lists(st.integers(1, len(sent) - 1)))))
        assert (reply.status, reply.body) == ((204, b"") if sent is EMPTY else (200, b"hello"))
        assert reply.headers.get("Retry-After") == ("7" if b"RETRY" in sent else None)
        assert reader.reusable


@given(st.binary())
def test_whatever_comes_is_a_reply_or_refused(data: bytes) -> None:
    reader = ReplyReader()
    try:
        reply = reader.feed(OK + data) or reader.end()
    except Broken:
        assert not reader.reusable
    else:
        assert reply.status == 200


@pytest.mark.parametrize("more", [b"garbage", PLAIN, b"H", b"\0", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"])
@pytest.mark.parametrize("name", WHOLE)
def test_what_follows_a_reply_spoils_the_connection_alone(name: str, more: bytes) -> None:
    reader = ReplyReader()
    reply = read(reader, [WHOLE[name][0] + more])
    assert (reply.status, reply.body) == (200, b"hello")
    assert not reader.reusable


@pytest.mark.parametrize("name", WHOLE)
def test_an_end_within_a_reply_is_none(name: str) -> None:
    data, _ = WHOLE[name]
    for place in range(len(data)):
        reader = ReplyReader()
        assert reader.feed(data[:place]) is None
        with pytest.raises(Broken, match="before an answer came" if place == 0 else "amid the answer"):
            reader.end()


def test_an_end_that_belongs_to_the_reply() -> None:
    for place in range(UNTIL_CLOSED.index(b"hello"), len(UNTIL_CLOSED)):
        reader = ReplyReader()
        assert [reader.feed(piece) for piece in cut(UNTIL_CLOSED, [place])] in ([None], [None, None])
        assert (reply := reader.end()).status == 200
        assert reply.body == b"hello"
        assert not reader.reusable


@pytest.mark.parametrize("status", [204, 304])
def test_what_has_no_body_ends_with_its_head(status: int) -> None:
    reader = ReplyReader()
    reply = read(reader, [b"HTTP/1.1 %d Nothing\r\nX: y\r\n\r\n" % status])
    assert (reply.status, reply.body, reader.reusable) == (status, b"", True)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP as it should be"),
        (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n", "Content-Length"),
        (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "Content-Length"),
        (OK + b"Content-Length: two\r\n\r\n", "Content-Length"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "chunk size"),
        (b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "another protocol"),
    ],
)
def test_what_is_no_reply_is_refused(data: bytes, why: str) -> None:
    reader = ReplyReader()
    with pytest.raises(Broken, match=why):
        reader.feed(data)
    assert not reader.reusable


HEAD = OK + b"X: " + b"x" * 900 + b"\r\nContent-Length: 0\r\n\r\n"


def test_a_head_that_is_too_long_is_refused() -> None:
    for place in range(0, len(HEAD), 50):
        assert read(ReplyReader(head_max=1000), cut(HEAD, [place])).status == 200
        with pytest.raises(Broken, match="head is longer than 900 bytes"):
            list(map(ReplyReader(head_max=900).feed, cut(HEAD, [place])))
    endless = ReplyReader(head_max=900)
    with pytest.raises(Broken, match="head"):
        while True:
            endless.feed(b"HTTP/1.1 100 Continue\r\n\r\n")


def test_a_body_that_is_too_long_is_refused() -> None:
    for data in (PLAIN, CHUNKED):
        for place in range(len(data)):
            assert read(ReplyReader(body_max=5), cut(data, [place])).body == b"hello"
            with pytest.raises(Broken, match="body is longer than 4 bytes"):
                list(map(ReplyReader(body_max=4).feed, cut(data, [place])))


# ── requests ──


def test_a_request_as_bytes() -> None:
    requests = Requests("http://host:8080/below", "secret")
    written = requests.write("POST", "/enqueue?a=b", {"Content-Type": "application/json"}, b"[]")
    head = b"POST /below/enqueue?a=b HTTP/1.1\r\nHost: host:8080\r\nUser-Agent: mqueue\r\nAuthorization: Bearer secret\r\n"
    assert written == head + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"


@pytest.mark.parametrize(
    ("method", "length"), [("GET", b""), ("DELETE", b""), ("POST", b"Content-Length: 0\r\n"), ("PUT", b"Content-Length: 0\r\n")]
)
def test_a_request_without_a_body(method: str, length: bytes) -> None:
    written = Requests("https://[::1]", None).write(method, "/", {}, None)
    assert written == method.encode() + b" / HTTP/1.1\r\nHost: [::1]\r\nUser-Agent: mqueue\r\n" + length + b"\r\n"


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/ä", "/a\n", "/\x7f"])
def test_a_path_is_no_more_than_that(path: str) -> None:
    with pytest.raises(ValueError):
        Requests("http://h", None).write("GET", path, {}, None)


@pytest.mark.parametrize(("name", "value"), [("A", "b\r\nC: d"), ("A", "b\n"), ("A", "b\r"), ("A", "\0"), ("A", "ä"), ("A: b\r\nC", "d")])
def test_a_header_is_no_more_than_that(name: str, value: str) -> None:
    with pytest.raises(ValueError):
        Requests("http://h", None).write("GET", "/", {"Accept": "x", name: value}, None)
