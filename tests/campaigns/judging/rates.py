"""What a history tells of throughput, and of what each broker answered. Pure; times are monotonic seconds."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from mqueue.torture.history import OK, Answer

CALLS = ("enqueue", "fetch", "ack")
STEP_S = 0.1


def rate(answers: Iterable[Answer], call: str, start: float, end: float) -> float:
    """Messages a second for which a call of this kind did something."""
    return sum(a.messages for a in answers if a.call == call and start <= a.answered < end) / (end - start)


def back_after(answers: Sequence[Answer], call: str, since: float, until: float, wanted: float, window_s: float) -> float | None:
    """Seconds from `since` to the first `window_s` in which the rate is as wanted; None: not before `until`."""
    steps = [0] * (round((until - since) / STEP_S) + 1)
    for a in answers:
        if a.call == call and since <= a.answered < until:
            steps[int((a.answered - since) / STEP_S)] += a.messages
    upto = [0, *accumulate(steps)]
    width = round(window_s / STEP_S)
    return next((at * STEP_S for at in range(len(steps) - width + 1) if upto[at + width] - upto[at] >= wanted * window_s), None)


def longest_gap(answers: Iterable[Answer], call: str, broker: int, start: float, end: float) -> float:
    """Seconds without any such call answered with ok by this broker."""
    good = sorted(a.answered for a in answers if (a.call, a.broker, a.said) == (call, broker, OK) and start <= a.answered < end)
    return max(b - a for a, b in zip([start, *good], [*good, end], strict=True))


def told(answers: Iterable[Answer], start: float, end: float) -> dict[tuple[str, int], Counter[str]]:
    """By call and broker: how often it said what to what was sent within."""
    found: dict[tuple[str, int], Counter[str]] = {}
    for a in answers:
        if start <= a.sent < end:
            found.setdefault((a.call, a.broker), Counter())[a.said] += 1
    return dict(sorted(found.items()))


def answers_told(answers: Iterable[Answer], start: float, end: float) -> list[str]:
    """`told`, a line each."""
    return [f"  {call:8} broker {broker}: {_said(counter)}" for (call, broker), counter in told(answers, start, end).items()]


def _said(counter: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counter.most_common())
