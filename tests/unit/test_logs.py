"""The log must not stop the work."""

import io

from mqueue.logs import Writer


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_line_that_cannot_be_written_is_dropped() -> None:
    writer = Writer(Full())
    for say in (writer.info, writer.error, writer.exception):
        say("something")


def test_others_are_written() -> None:
    file = io.StringIO()
    Writer(file).info("something")
    assert file.getvalue() == "something\n"
