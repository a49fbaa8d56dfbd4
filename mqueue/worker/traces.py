"""Errors become texts that PostgreSQL takes, of a bounded length."""

import traceback
from collections.abc import Callable
from types import TracebackType

from mqueue import message as m
from mqueue.worker.tasks.signals import ProcessEnded

SUMMARY_MAX = 1024  # bytes of an error's type and message; the rest is the traceback's tail
CUT = "…\n"


def summary(error: BaseException) -> str:
    """Gives type and message, one line or more, at most SUMMARY_MAX bytes."""
    return cut(_format(lambda: traceback.format_exception_only(error), error).strip())


def describe(error: BaseException) -> str:
    """Gives type and message, then the traceback: at most ERROR_MAX bytes. Of a longer traceback it keeps the end,
    where the mistake is.
    """
    head = summary(error)
    if isinstance(error, ProcessEnded):  # its traceback is the worker's own
        return head
    trace = _format(lambda: traceback.format_exception(type(error), error, _own(error.__traceback__)), error)
    return f"{head}\n\n{bounded(trace, m.ERROR_MAX - len(head.encode()) - 2)}"


def bounded(trace: str, room: int = m.ERROR_MAX) -> str:
    """Keeps at most `room` bytes of it: the end."""
    encoded = _encode(trace)
    if len(encoded) > room:
        encoded = CUT.encode() + encoded[-(room - len(CUT.encode())) :]
    return encoded.decode(errors="ignore").rstrip()


def _format(lines: Callable[[], list[str]], error: BaseException) -> str:
    """Joins the lines. Some errors break as they are formatted: their type must do."""
    try:
        return "".join(lines())
    except Exception:
        return type(error).__name__


def cut(text: str) -> str:
    """Keeps at most SUMMARY_MAX bytes of it: the beginning."""
    return _encode(text)[:SUMMARY_MAX].decode(errors="ignore")


def _own(trace: TracebackType | None) -> TracebackType | None:
    """Leaves out the runtime's frame."""
    return trace.tb_next if trace is not None and trace.tb_next is not None else trace


def _encode(text: str) -> bytes:
    """Encodes as UTF-8 that PostgreSQL takes: lone surrogates and NUL are spelled out."""
    return text.encode(errors="backslashreplace").replace(b"\0", rb"\x00")
