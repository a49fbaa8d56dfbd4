"""The broker restarted, and the network cut, again and again under load: every worker claims work again within five
seconds of its return.

    python -m tests.campaigns.resume --times 20

The network is a proxy between workers and broker. *cut*: it resets connections and refuses new ones; *silence*: not a
byte passes, and at the end the connections are reset; *forgotten*: the same, but they stay open and dead for ever, and
only new ones pass. Readiness (`/ready` of each worker's probe) is looked at all the time: red within ten seconds of the
loss, green within five of the return, never red without a loss.
"""

import random
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from mqueue.client import Client
from tests.campaigns.load.jobs import Crew, Load, Note, unfinished
from tests.processes.broker import Broker, free_ports
from tests.processes.network import Network
from tests.waiting import wait_until

from .campaign import finish, median, options, table

WAYS = ("restart", "cut", "silence", "forgotten")
WORKERS = ("one", "two")
SLOTS = 10
RATE = 30.0  # jobs a second
LEASE_S = 5.0
RESUME_S = 5.0
RED_S = 10.0
LOOK_S = 0.1
CALM_S = 3.0
WAIT_S = 120.0


@dataclass
class Loss:
    """`back`: when the broker could be reached again. By worker: `resumed_s` until its next job began, `green_s` until
    it said so.
    """

    way: str
    lost: float
    back: float
    resumed_s: dict[str, float] = field(default_factory=dict)
    green_s: dict[str, float] = field(default_factory=dict)
    red_s: dict[str, float | None] = field(default_factory=dict)  # from the loss; None: never


@dataclass
class Found:
    losses: list[Loss] = field(default_factory=list)
    jobs: int = 0
    lost: int = 0
    untrue: list[str] = field(default_factory=list)
    looks: int = 0

    def late(self, resume_s: float = RESUME_S) -> int:
        return sum(s > resume_s for loss in self.losses for s in (*loss.resumed_s.values(), *loss.green_s.values()))

    def good(self, resume_s: float = RESUME_S) -> bool:
        return bool(self.losses) and not self.lost and not self.untrue and not self.late(resume_s)


class Watch:
    """Asks the probes for `/ready`, each from a thread of its own: when it was asked, and whether it said yes."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.seen: dict[str, list[tuple[float, bool]]] = {name: [] for name in ports}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._look, args=each, daemon=True) for each in ports.items()]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _look(self, name: str, port: int) -> None:
        while not self._stop.wait(LOOK_S):
            at = time.monotonic()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):
                    ready = True
            except urllib.error.HTTPError as error:
                error.close()
                ready = False
            except OSError:
                continue  # it is not up yet
            self.seen[name].append((at, ready))


def run(times: int, ways: Sequence[str] = WAYS, away_s: tuple[float, float] = (0.5, 9.0), seed: int = 1) -> Found:
    """So many losses of each way, `away_s` long."""
    found, chance = Found(), random.Random(seed)
    [port, *probes] = free_ports(1 + len(WORKERS))
    with (
        Broker("--port", str(port)) as broker,
        tempfile.TemporaryDirectory() as folder,
        Network(port) as network,
        Client(broker.url, broker.token, batch=True) as client,
    ):
        ports = dict(zip(WORKERS, probes, strict=True))
        with Crew(Path(folder), network.url, broker.token) as crew, Load(client, RATE, _job, LEASE_S, seed) as load:
            for name, probe in ports.items():
                crew.start(name, "--concurrency", str(SLOTS), "--probe-port", str(probe), "--probe-host", "127.0.0.1").wait_started()
            with Watch(ports) as watch:
                load.start()
                for way in [*ways] * times:
                    wait_until(lambda: all(_begins(crew, name) for name in WORKERS), "both work", WAIT_S)
                    wait_until(lambda: all(_green(watch, name) for name in WORKERS), "both say so", WAIT_S)
                    time.sleep(chance.random() * CALM_S)
                    loss = _lose(way, broker, network, chance.uniform(*away_s))
                    _resume(loss, crew, watch)
                    found.losses.append(loss)
                load.stop()
                wait_until(lambda: unfinished(client) == 0, "all is done", WAIT_S)
        found.jobs = len(load.known())
        ended = {note.job for note in crew.notes() if note.what == "ended"}
        found.lost = len(set(load.known()) - ended)
        _judge(found, crew.notes(), watch)
    return found


def _job(chance: random.Random) -> tuple[str, Sequence[object]]:
    return chance.choice(("rest", "block")), [round(chance.uniform(0.01, 0.3), 3)]


def _lose(way: str, broker: Broker, network: Network, seconds: float) -> Loss:
    lost = time.monotonic()
    if way == "restart":
        broker.kill()
        time.sleep(min(seconds, 3.0))
        broker.start()
        return Loss(way, lost, time.monotonic())
    harm: Callable[[], None] = network.cut if way == "cut" else network.stall
    harm()
    time.sleep(seconds)
    network.heal("forgotten" if way == "forgotten" else "reset")
    return Loss(way, lost, time.monotonic())


def _begins(crew: Crew, name: str) -> bool:
    return any(note.worker == name and note.at > time.monotonic() - 1.0 for note in crew.notes()[-200:])


def _green(watch: Watch, name: str) -> bool:
    return bool(watch.seen[name]) and watch.seen[name][-1][1]


def _resume(loss: Loss, crew: Crew, watch: Watch) -> None:
    """A job counts that was leased after the return."""
    offset = time.time() - time.monotonic()

    def begun(name: str) -> Note | None:
        fresh = (
            n for n in crew.notes() if n.worker == name and n.what == "began" and n.at > loss.back and n.leased - offset > loss.back - 0.05
        )
        return next(fresh, None)

    for name in WORKERS:
        note = wait_until(lambda name=name: begun(name), f"{loss.way}: {name} claims work again", WAIT_S)
        loss.resumed_s[name] = note.at - loss.back
        at = wait_until(
            lambda name=name: next((at for at, ready in watch.seen[name] if at > loss.back and ready), None), f"{name} is ready again", WAIT_S
        )
        loss.green_s[name] = at - loss.back
        loss.red_s[name] = next((at - loss.lost for at, ready in watch.seen[name] if loss.lost < at < loss.back and not ready), None)


def _judge(found: Found, notes: Sequence[Note], watch: Watch) -> None:
    """Green long after the loss is untrue; so is red when nothing was lost of late."""
    for name, looks in watch.seen.items():
        found.looks += len(looks)
        for at, ready in looks:
            amid = [loss for loss in found.losses if loss.lost < at < loss.back]
            if ready and any(at > loss.lost + RED_S for loss in amid):
                found.untrue.append(f"{name} is ready {at - amid[0].lost:.1f} s after the loss ({amid[0].way})")
            if not ready and not any(loss.lost < at < loss.back + max(loss.resumed_s[name], RESUME_S) for loss in found.losses):
                found.untrue.append(f"{name} is not ready though nothing is lost")


def report(found: Found) -> list[str]:
    lines = [f"{'':10}{'times':>6}{'away, s':>9}{'resumed, s: median':>20}{'slowest':>9}{'ready again':>13}{'slowest':>9}{'red after, s':>14}"]
    for way in dict.fromkeys(loss.way for loss in found.losses):
        losses = [loss for loss in found.losses if loss.way == way]
        resumed = [s for loss in losses for s in loss.resumed_s.values()]
        green = [s for loss in losses for s in loss.green_s.values()]
        red = [s for loss in losses for s in loss.red_s.values() if s is not None]
        away = max(loss.back - loss.lost for loss in losses)
        lines.append(
            f"{way:10}{len(losses):>6}{away:>9.1f}{median(resumed):>20.2f}{max(resumed):>9.2f}"
            f"{median(green):>13.2f}{max(green):>9.2f}{(f'{max(red):.1f}' if red else 'never'):>14}"
        )
    rows = {
        "jobs": found.jobs,
        "lost": found.lost,
        f"later than {RESUME_S:g} s": found.late(),
        "looks at readiness": found.looks,
        "of which untrue": len(found.untrue),
    }
    return lines + table(rows)


def main() -> int:
    given = options(__doc__, times=20, seed=1)
    found = run(given.times, seed=given.seed)
    claim = f"work claimed and ready within {RESUME_S:g} s of the return, nothing lost"
    return finish(found.good(), report(found), claim, found.untrue[:20])


if __name__ == "__main__":
    raise SystemExit(main())
