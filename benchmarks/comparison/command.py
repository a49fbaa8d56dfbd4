"""`peers` runs the rounds and writes what they measured; `report` puts a result into the pages."""

import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks.comparison import chart, environments, report, results, systems
from benchmarks.comparison.environments import Interpreter
from benchmarks.comparison.results import Outcome, Result
from benchmarks.comparison.systems import System
from benchmarks.comparison.turn import Tell, take_turn
from benchmarks.setting import MEMORY_FILE_SYSTEMS, machine
from mqueue.errors import MQueueError
from mqueue.launch import home

CHART = environments.ROOT / "docs" / "benchmarks.svg"


@click.command()
@click.option("--seconds", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Length of each measure.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Turns of each system.")
@click.option("--only", help="These systems alone, comma-separated: mqueue,celery,… [default: all]")
@click.option("--baseline", metavar="REV", help="Measure mqueue as it was at this revision, too.")
@click.option("--base", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder for the data while it runs: on a disk.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file. [default: benchmarks/results/DATE.json]")
def peers(seconds: float, rounds: int, only: str | None, baseline: str | None, base: Path | None, out: Path | None) -> None:
    """Measure mqueue and its peers side by side, in turns. It installs the peers in an environment of their own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    chosen = choose(only, with_baseline=baseline is not None)
    now = datetime.now(UTC)
    about = machine(base or Path(tempfile.gettempdir()))
    if about["file_system"] in MEMORY_FILE_SYSTEMS:
        click.echo("Note: the data lies in memory, where an fsync costs nothing: name a folder on a disk with --base", err=True)
    outcomes = [Outcome(system.key, system.name, systems.DURABILITY[system.store]) for system in chosen]
    revision = environments.revision_of("HEAD")
    before = environments.revision_of(baseline) if baseline else None
    result = Result(f"{now:%Y-%m-%d}", seconds, rounds, revision, before, about, outcomes)
    with home(base) as folder, interpreters(chosen, baseline, folder) as found:
        for turn in measured(chosen, result, found, base):
            click.echo(turn, err=True)
    file = out or report.RESULTS / f"{now:%Y-%m-%d}.json"
    results.write(result, file)
    for line in report.failures(outcomes):
        click.echo(f"failed: {line}", err=True)
    click.echo(f"{report.comparison(result)}\n\n{report.systems(result)}")
    click.echo(f"\nkept in {file}; into the pages: python -m benchmarks report {file.name}", err=True)


@click.command(name="report")
@click.argument("peers_file", metavar="FILE")
@click.option("--own", "own_file", metavar="FILE", help="The result of mqueue's own benchmarks (--json).")
def put(peers_file: str, own_file: str | None) -> None:
    """Put results of benchmarks/results into README.md and docs/benchmarks.md, and draw the chart."""
    for page in report.PAGES:
        text = page.read_text()
        for kind in ("peers", "systems", "brief"):
            text = report.named(text, kind, peers_file)
        if own_file:
            text = report.named(text, "own", own_file)
        page.write_text(report.fill(text, report.render))
    CHART.write_text(chart.draw(results.read(report.RESULTS / peers_file)))


def choose(only: str | None, *, with_baseline: bool) -> list[System]:
    """Raises BadParameter for a name that no system has."""
    names = only.split(",") if only else [key for key in systems.ALL if not key.endswith("@baseline")]
    if unknown := sorted(set(names) - set(systems.ALL)):
        raise click.BadParameter(f"no such system: {', '.join(unknown)}; there are {', '.join(systems.ALL)}", param_hint="--only")
    older = {f"{name}@baseline" for name in names} if with_baseline else set()
    return [system for key, system in systems.ALL.items() if key in older or key in names]


@contextmanager
def interpreters(chosen: Sequence[System], baseline: str | None, folder: Path) -> Iterator[dict[str, Interpreter]]:
    """Yields the interpreter of each environment that a chosen system needs."""
    needed = {system.environment for system in chosen}
    code = environments.code_in(folder)
    found: dict[str, Interpreter] = {"own": environments.own(code)}
    if "peers" in needed:
        found["peers"] = environments.peers(code)
    if "baseline" in needed and baseline is not None:
        with environments.baseline(code, baseline, folder) as older:
            yield found | {"baseline": older}
    else:
        yield found


def measured(chosen: Sequence[System], result: Result, found: dict[str, Interpreter], base: Path | None) -> Iterator[str]:
    """Takes all turns, and yields a line for each. A system that fails keeps nobody else from its turn."""
    began, turns = time.monotonic(), result.rounds * len(chosen)
    for number in range(turns):
        system, outcome = chosen[number % len(chosen)], result.systems[number % len(chosen)]
        with home(base) as folder:
            try:
                turn = take_turn(system, found[system.environment], folder, result.seconds, _progress(number, turns, system))
            except (RuntimeError, TimeoutError, OSError, MQueueError) as error:
                outcome.failures.append(str(error))
                said = f"failed: {error}"
            else:
                outcome.package, outcome.settings = turn.about["package"], turn.about["settings"]
                outcome.version = turn.about["version"] if system.store != "broker" else _revision(system, result)
                outcome.add(turn.measures)
                said = "  ".join(f"{key} {report.number(value)}" for key, value in turn.measures.items())
        left = (time.monotonic() - began) / (number + 1) * (turns - number - 1) / 60
        yield f"{number + 1} of {turns} (some {left:.0f} min left)  {system.name}: {said}"


def _revision(system: System, result: Result) -> str:
    """Returns what mqueue's version does not tell: the revision that ran."""
    return (result.baseline or "") if system.environment == "baseline" else result.revision


def _progress(number: int, turns: int, system: System) -> Tell:
    """Returns what shows on a terminal what is being measured, on one line that is written over."""

    def tell(what: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\033[K{number + 1} of {turns}  {system.name}: {what} …\r", err=True, nl=False)

    return tell
