"""What a worker in a test logs goes to the standard library's logging: pytest shows it, and `capsys` is
left to the handlers.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog


@contextmanager
def to_logging() -> Iterator[None]:
    """Loggers of mqueue write there meanwhile, and only they; none do where whoever tests has set structlog up."""
    if structlog.is_configured():
        yield
        return
    print_logger = structlog.get_config()["logger_factory"]

    def factory(*args: Any) -> Any:
        of_mqueue = args and isinstance(args[0], str) and args[0].startswith("mqueue.")
        return logging.getLogger(args[0]) if of_mqueue else print_logger(*args)

    structlog.configure(logger_factory=factory)
    try:
        yield
    finally:
        if structlog.get_config()["logger_factory"] is factory:  # else the test has set it up meanwhile
            structlog.reset_defaults()
