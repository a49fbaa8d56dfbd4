"""What a handler's end means for its message."""

import asyncio
import math
from datetime import timedelta

import pytest

from mqueue import message as m
from mqueue.worker import outcome
from mqueue.worker.codec import Misfit
from mqueue.worker.outcome import Bury, Outcome, Retry


def raised(error: BaseException) -> BaseException:
    def runtime() -> None:
        handler()

    def handler() -> None:
        raise error

    try:
        runtime()
    except BaseException as caught:
        return caught
    raise AssertionError


def test_a_return_is_an_ack() -> None:
    assert outcome.decide(None) == Outcome("ack")


def test_an_exception_is_a_nack_with_type_message_and_traceback() -> None:
    result = outcome.decide(raised(ValueError("no such user")))
    assert result.kind == "nack" and result.retry_after is None
    assert result.error is not None
    assert result.error.startswith("ValueError: no such user\n\nTraceback")
    assert "in handler" in result.error


def test_a_long_error_keeps_its_head_and_the_tail_of_its_trace() -> None:
    def deep(n: int) -> None:
        if n == 0:
            raise ValueError("ü" * 5000 + "\0\ud800")
        (deep if n % 2 else deeper)(n - 1)

    def deeper(n: int) -> None:
        deep(n - 1)

    try:
        deep(120)
    except ValueError as error:
        text = outcome.describe(error)
    assert len(text.encode()) <= m.ERROR_MAX
    assert text.startswith("ValueError: üüü")
    assert text.endswith(r"ü\x00\ud800")


def test_an_error_whose_message_fails_is_still_told() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert outcome.decide(raised(Broken())).error.startswith("test_worker_outcome.")  # type: ignore[union-attr]


def test_an_error_that_cannot_be_formatted_is_still_told() -> None:
    error = SyntaxError("x", ("file", 1, "no offset", "text\n"))
    result = outcome.decide(raised(error))
    assert result.kind == "nack" and result.error is not None and result.error.startswith("SyntaxError")


@pytest.mark.parametrize("after", [timedelta(1), -1, math.nan, 10**400, "soon", object()])
def test_a_retry_whose_after_is_no_number_of_seconds_comes_after_the_backoff(after: object) -> None:
    error = Retry("not yet")
    error.after = after  # type: ignore[assignment]
    assert outcome.decide(raised(error)).retry_after is None
    del error.after
    assert outcome.decide(raised(error)).retry_after is None


def test_every_text_fits_and_can_be_sent() -> None:
    nasty = "a\0\ud800" + "ü" * 300_000
    for result in (outcome.decide(Misfit(nasty)), outcome.unknown(nasty), outcome.decide(raised(Bury(nasty)))):
        assert result.error is not None and r"a\x00\ud800ü" in result.error
        assert len(result.error.encode()) <= m.ERROR_MAX


def test_retry_says_when() -> None:
    result = outcome.decide(raised(Retry("not yet", after=7)))
    assert (result.kind, result.retry_after) == ("nack", 7)
    for after in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds"):
            Retry(after=after)


def test_bury_and_misfit_are_buried() -> None:
    assert outcome.decide(raised(Bury("gone for good"))).kind == "bury"
    assert outcome.decide(Misfit("argument 1 does not fit")) == Outcome("bury", "argument 1 does not fit")


def test_a_cancellation_is_a_release_only_when_the_worker_stops() -> None:
    assert outcome.decide(asyncio.CancelledError(), stopping=True) == Outcome("release")
    assert outcome.decide(raised(asyncio.CancelledError())).kind == "nack"


def test_leaving_the_program_is_a_nack() -> None:
    assert outcome.decide(raised(SystemExit(3))).kind == "nack"
