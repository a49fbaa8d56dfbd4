"""A run is load, faults one after the other with calm between, a drain, the verdict, and its table."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import click

from mqueue.errors import MQueueError
from mqueue.torture.faults import FAULTS
from mqueue.torture.history import Fault, History, Key
from mqueue.torture.judge import Verdict, judge
from mqueue.torture.load import Load
from mqueue.torture.scene import new_history, staged, under_load
from mqueue.torture.stage import Stage, TortureError

LATER_S = 120.0
FAULT_S = 8.0  # what one takes on average, with the calm after it: each comes as often as there is time for all
CALM_S = 2.0  # between two faults, so that something certain is known
WORKER_KILL = "worker-kill"
NAMES = (*FAULTS, WORKER_KILL)


@dataclass
class Result:
    """`reached` counts how often each fault happened; `each` is how often it must. `error`: why the run
    could not go on, if so.
    """

    seed: int
    each: int = 1
    seconds: float = 0.0
    produced: int = 0
    acked: int = 0
    fetches: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    error: str = ""
    history: History = field(default_factory=lambda: History(0.0))

    def good(self) -> bool:
        happened = self.produced > 0 and self.acked > 0 and self.verdict.judged > 0
        return not self.error and happened and self.verdict.good() and not self.missing()

    def missing(self) -> list[str]:
        return [name for name, count in self.reached.items() if count < self.each]


async def torture(minutes: float, seed: int, names: Sequence[str]) -> Result:
    """It raises nothing: what goes wrong is in the result."""
    result = Result(seed, each=max(1, int(minutes * 60 / (FAULT_S * len(names)))), reached=Counter(dict.fromkeys(names, 0)))
    history = result.history = new_history()
    began = time.monotonic()
    try:
        async with staged(lambda urls, token: Load(history, urls, token, seed)) as (stage, load):
            try:
                await _run(stage, load, history, result, began + minutes * 60, began + minutes * 90 + LATER_S)
            finally:
                result.produced, result.acked = load.produced, load.acked
    except (TortureError, MQueueError) as error:
        result.error = str(error)
    result.seconds = time.monotonic() - began
    result.fetches = len(history.fetches)
    result.verdict = judge(history)
    return result


async def _run(stage: Stage, load: Load, history: History, result: Result, until: float, last: float) -> None:
    """It does faults until then; those not reached often enough, still, but not past `last`."""
    chance = random.Random(result.seed)
    async with under_load(stage, load) as workers:
        await asyncio.sleep(1.0)
        order: list[str] = []
        while time.monotonic() < until or result.missing():
            if time.monotonic() > last:
                return
            names = list(result.reached) if time.monotonic() < until else result.missing()
            order = [name for name in order if name in names] or chance.sample(names, len(names))
            await _one(stage, load, history, result, order.pop(), chance, workers)
            await asyncio.sleep(CALM_S)


async def _one(
    stage: Stage, load: Load, history: History, result: Result, name: str, chance: random.Random, workers: list[asyncio.Task[None]]
) -> None:
    start, note = time.monotonic(), ""
    if name == WORKER_KILL:
        await _kill_worker(load, workers, chance)
        result.reached[name] += 1
    else:
        damage = await FAULTS[name](stage, chance)
        await stage.settled()
        history.faults.append(Fault(name, start, time.monotonic(), damage.lost, damage.down))
        result.reached[name] += damage.reached
        note = damage.note if damage.reached else f"{damage.note} not reached"
    took = time.monotonic() - start
    click.echo(f"{name:18} {result.reached[name]:4}   {took:5.1f} s   enqueued {load.produced:8,}   acked {load.acked:8,}  {note}", err=True)


async def _kill_worker(load: Load, workers: list[asyncio.Task[None]], chance: random.Random) -> None:
    """It kills a worker in the midst of a call, with what it has leased."""
    at = chance.randrange(len(workers))
    workers[at].cancel()
    await asyncio.gather(workers[at], return_exceptions=True)
    workers[at] = asyncio.create_task(load.work(at))


def table(result: Result) -> list[str]:
    """Returns what is printed at the end, and stands in docs/reliability.md."""
    verdict = result.verdict
    lines = [f"seed {result.seed}, {result.seconds:.0f} s, {result.produced:,} enqueued, {result.acked:,} acked", ""]
    lines += ["| fault | times reached |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in sorted(result.reached.items())]
    lines += ["", "| must be zero | count |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {count} |" for name, count in verdict.bad().items()]
    lines += [
        "",
        f"Delivered after an acknowledged ack where it is allowed: {len(verdict.allowed_after_ack)}; two messages of one key where it is"
        f" allowed: {len(verdict.allowed_doubled)}; order was told of {verdict.judged:,} of {result.fetches:,} fetches.",
    ]
    if result.error:
        lines += ["", f"The run did not come to its end: {result.error}"]
    return lines


def details(verdict: Verdict, history: History) -> list[str]:
    """Returns the first few of each violation, and the stories of those that have an id."""
    lines: list[str] = []
    for name, count in verdict.bad().items():
        if count:
            some = list(vars(verdict)[name])[:3]
            lines.append(f"{name}: {some}")
            for one in some:
                lines += [f"  {line}" for id in _ids(one) for line in history.story(id)]
    return lines


def _ids(found: object) -> list[int]:
    """Returns the ids of the messages that one violation is about."""
    if isinstance(found, int):
        return [found]
    parts = (found, *found) if isinstance(found, tuple) else ()
    return [key.id for key in parts if isinstance(key, Key)]
