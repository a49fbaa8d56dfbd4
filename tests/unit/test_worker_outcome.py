"""What a handler's end means for its message."""

import asyncio
import math
from datetime import timedelta

import pytest

from mqueue import message as m
from mqueue.worker.arguments.codec import Misfit
from mqueue.worker.running import outcome
from mqueue.worker.running.ending import ending
from mqueue.worker.running.outcome import Outcome
from mqueue.worker.tasks.job import Interrupt
from mqueue.worker.tasks.retry import Retry
from mqueue.worker.tasks.signals import Bury, RateLimited, Snooze


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
def test_seconds_that_are_none_leave_it_to_the_broker(after: object) -> None:
    limited, snooze = RateLimited(retry_after=1), Snooze(1)
    limited.retry_after = snooze.seconds = after  # type: ignore[assignment]
    for _ in range(2):
        for error in (limited, snooze):
            result = outcome.decide(raised(error))
            assert (result.kind, result.retry_after) == ("nack", None)
        vars(limited).clear(), vars(snooze).clear()


def test_every_text_fits_and_can_be_sent() -> None:
    nasty = "a\0\ud800" + "ü" * 300_000
    for result in (outcome.decide(Misfit(nasty)), outcome.unknown(nasty), outcome.decide(raised(Bury(nasty)))):
        assert result.error is not None and r"a\x00\ud800ü" in result.error
        assert len(result.error.encode()) <= m.ERROR_MAX


def test_a_rate_limit_says_when_whatever_the_policy() -> None:
    policy = Retry(never=(Exception,))
    result = outcome.decide(raised(RateLimited("slow down", retry_after=7)), retry=policy)
    assert (result.kind, result.retry_after) == ("nack", 7)
    assert result.error is not None and "RateLimited: slow down" in result.error


def test_a_snooze_is_a_release_with_a_delay() -> None:
    assert outcome.decide(raised(Snooze(30))) == Outcome("release", None, 30)


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
def test_no_delay_but_a_number_of_seconds(seconds: float) -> None:
    for make in (lambda: Snooze(seconds), lambda: RateLimited(retry_after=seconds), lambda: Retry(base=seconds)):
        with pytest.raises(ValueError, match="seconds"):
            make()


def test_a_policy_chooses_delay_and_errors() -> None:
    policy = Retry(base=2, cap=10, jitter=0.5, on=(OSError,), never=(FileNotFoundError,))

    def result(error: BaseException, attempt: int = 1, chance: float = 0.0) -> tuple[str, float | None]:
        made = outcome.decide(raised(error), retry=policy, attempt=attempt, chance=chance)
        assert made.error is not None and "in handler" in made.error
        return made.kind, made.retry_after

    assert [result(OSError(), n) for n in (1, 2, 3, 4, 900)] == [("nack", s) for s in (2, 4, 8, 10, 10)]
    assert result(ConnectionError(), 2, 0.5) == ("nack", 3)
    assert result(FileNotFoundError()) == result(ValueError()) == result(asyncio.CancelledError()) == ("bury", None)
    assert outcome.decide(raised(SystemExit(1)), retry=Retry()).kind == "nack"


def test_a_policy_that_breaks_retries() -> None:
    class Meta(type):
        def __instancecheck__(cls, instance: object) -> bool:
            if instance is None:
                return False
            raise RuntimeError

    class Odd(Exception, metaclass=Meta): ...

    assert outcome.decide(raised(ValueError()), retry=Retry(on=(Odd,))).kind == "nack"


@pytest.mark.parametrize(
    "wrong", [{"max": -1}, {"max": 1001}, {"base": 0}, {"base": 3, "cap": 2}, {"jitter": 1.1}, {"jitter": -0.1}, {"cap": math.inf}]
)
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"Retry\("):
        Retry(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Retry(on=("ValueError",))  # type: ignore[arg-type]


def test_bury_and_misfit_are_buried() -> None:
    assert outcome.decide(raised(Bury("gone for good"))).kind == "bury"
    assert outcome.decide(Misfit("argument 1 does not fit")) == Outcome("bury", "argument 1 does not fit")


def stopped(error: BaseException) -> Outcome | None:
    return ending({Interrupt.STOPPING}, outcome.decide(error), lambda: outcome.RELEASED)


def test_a_cancellation_is_a_release_only_when_the_worker_stops() -> None:
    assert stopped(asyncio.CancelledError()) == Outcome("release")
    assert outcome.decide(raised(asyncio.CancelledError())).kind == "nack"


def test_leaving_the_program_is_a_nack() -> None:
    assert outcome.decide(raised(SystemExit(3))).kind == "nack"


@pytest.mark.parametrize(
    "error", [RuntimeError("cleaning up"), ExceptionGroup("of a group", [ValueError()]), asyncio.CancelledError(), SystemExit()]
)
def test_what_a_stop_makes_a_handler_raise_spends_no_attempt(error: BaseException) -> None:
    assert stopped(raised(error)) == outcome.RELEASED
    assert outcome.decide(raised(error)).kind == "nack"


def test_what_a_handler_means_counts_though_it_is_stopped() -> None:
    assert stopped(raised(Bury("never"))) == outcome.decide(raised(Bury("never")))
    assert stopped(raised(Snooze(5))) == Outcome("release", None, 5.0)
