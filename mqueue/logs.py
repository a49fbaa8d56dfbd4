"""Structured logs go to stderr: for people on a terminal, as JSON lines elsewhere."""

import logging
import sys
from contextlib import suppress
from typing import Any, Literal

import structlog

Format = Literal["auto", "console", "json"]


class Writer(structlog.WriteLogger):
    """Lines that cannot be written (a full disk, a closed pipe) are dropped: the work goes on."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            super().msg(message)

    debug = info = warning = error = critical = exception = msg


def configure(level: str = "info", format: Format = "auto") -> None:
    """Set up structlog for this process, and send the standard library's warnings (of uvicorn, redis, …) the same
    way.
    """
    to_people = format == "console" or (format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if to_people
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: Writer(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    logging.basicConfig(level=max(logging.WARNING, getattr(logging, level.upper())), handlers=[handler], force=True)
