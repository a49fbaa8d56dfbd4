"""The mail server is one to try things on: it listens on loopback, turns some mails away for a while, and keeps what it
accepted in memory.
"""

import socketserver
import threading
from email import message_from_bytes, policy
from email.message import EmailMessage

from examples.loopback import Loopback


class Mailbox:
    """`accepted` has the mails by Message-ID, so that one that is sent twice is there once. `busy` counts how often the
    server said "later".
    """

    def __init__(self) -> None:
        self.accepted: dict[str, EmailMessage] = {}
        self.busy = self.repeated = 0
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def answer(self, recipient: str) -> str:
        """Returns the reply to RCPT: nobody@ does not exist, and every third reader's server is busy the first time."""
        name = recipient.partition("@")[0]
        with self._lock:
            if name == "nobody":
                return "550 no such user"
            if name.endswith(("0", "3", "6", "9")) and recipient not in self._seen:
                self._seen.add(recipient)
                self.busy += 1
                return "451 busy, try again later"
            return "250 ok"

    def accept(self, data: bytes) -> None:
        mail = message_from_bytes(data, _class=EmailMessage, policy=policy.default)
        with self._lock:
            self.repeated += mail["Message-ID"] in self.accepted
            self.accepted[mail["Message-ID"]] = mail


class Server(Loopback):
    """It serves `mailbox` at `port` within a `with`."""

    def __init__(self, mailbox: Mailbox) -> None:
        class Session(_Session):
            box = mailbox

        super().__init__(Session)


class _Session(socketserver.StreamRequestHandler):
    box: Mailbox

    def handle(self) -> None:
        self._say("220 mail.example.org")
        while line := self.rfile.readline(1000):
            verb = line[:4].upper().strip()
            if verb == b"RCPT":
                self._say(self.box.answer(line.partition(b"<")[2].partition(b">")[0].decode()))
            elif verb == b"DATA":
                self._say("354 go on")
                self.box.accept(self._data())
                self._say("250 ok")
            elif verb == b"QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 ok")

    def _data(self) -> bytes:
        lines = []
        while (line := self.rfile.readline(1000)) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")
