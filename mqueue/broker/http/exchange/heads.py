"""A client says the same head again and again. One that came before, byte for byte, is not parsed again: the parser
would say the same, and costs more than all else that HTTP does for a small request.

Only a whole small request is known so, which comes in one read between two others; everything else goes to the parser.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

KNOWN_MAX = 1_024
HEAD_MAX = 2_048  # bytes
BODY_MAX = 32 * 1024  # bytes
# Who says one of these wants more than an answer, or never says the same again.
UNLIKE = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"idempotency-key"})
KEEP_ALIVE = b"keep-alive"


class Head(NamedTuple):
    """What the parser said of a head: the scope, and how many bytes of body come behind it."""

    scope: Mapping[str, Any]
    length: int


class Heads:
    """Remembers the heads of requests for `paths`, for all connections of a server. It forgets all when it is full: new
    ones come soon, and nobody can keep the others out.
    """

    def __init__(self, paths: Collection[str] = ()) -> None:
        self._paths = frozenset(paths)
        self._known: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Mapping[str, Any], bytes] | None:
        """Returns scope, without extensions, and body, where `data` is one whole request whose head is known."""
        end = data.find(b"\r\n\r\n", 0, HEAD_MAX) + 4
        if (head := self._known.get(data[:end])) is None or len(data) - end != head.length:
            return None
        return head.scope, data[end:]

    def remember(self, data: bytes, scope: Mapping[str, Any]) -> None:
        """Takes a whole request as it came in one read, and what the parser said of it."""
        if scope["path"] not in self._paths or scope["http_version"] != "1.1" or len(data) > BODY_MAX:
            return
        end = data.find(b"\r\n\r\n", 0, HEAD_MAX) + 4
        head, headers = data[:end], dict(scope["headers"])
        if end < 4 or head.count(b"\n") != head.count(b"\r\n"):
            return
        if not UNLIKE.isdisjoint(headers) or headers.get(b"connection", KEEP_ALIVE).lower() != KEEP_ALIVE:
            return
        length = int(headers.get(b"content-length", b"0"))
        if len(data) - end == length:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            kept = {name: value for name, value in scope.items() if name != "extensions"}  # these are of one connection
            self._known[head] = Head(kept, length)
