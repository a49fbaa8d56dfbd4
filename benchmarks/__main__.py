"""The command chooses benchmarks, runs them and prints their results. Two words are commands of their own: `peers`
compares mqueue with others, and `report` puts results into the pages.
"""

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import click

from benchmarks import backlog, cores, drain, enqueue, latency, processor, scripts, share
from benchmarks.comparison.command import peers, put
from benchmarks.row import KEPT, Row, table
from benchmarks.setting import MEMORY_FILE_SYSTEMS, Setting, machine, setting

NAMES = ("enqueue", "share", "drain", "cores", "latency", "backlog", "scripts", "processor")


class Commands(click.Group):
    """What is not named is a benchmark of our own: `python -m benchmarks latency`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args[:1] and args[0] in self.commands else ["own", *args])


@click.group(cls=Commands)
def main() -> None: ...


main.add_command(peers)
main.add_command(put)


@main.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES), metavar="[NAME...]")
@click.option("--messages", type=click.IntRange(100_000), default=backlog.MESSAGES, show_default=True, help="Depth of the deep backlog.")
@click.option("--base", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder for the data while it runs: on a disk.")
@click.option("--json", "json_file", type=click.File("w"), help="Write the result there too; - for stdout.")
def own(names: Sequence[str], messages: int, base: Path | None, json_file: IO[str] | None) -> None:
    """How fast it is here. NAME: enqueue, share, drain, cores, latency, backlog, scripts, processor; all if none is
    named.

    Besides, `peers` compares mqueue with other systems, and `report` puts results into the pages: each has a --help.
    """
    benchmarks: dict[str, Callable[[Setting], Awaitable[list[Row]]]] = {
        "enqueue": enqueue.run,
        "share": share.run,
        "drain": drain.run,
        "cores": cores.run,
        "latency": latency.run,
        "backlog": lambda place: backlog.run(place, messages),
        "scripts": scripts.run,
        "processor": processor.run,
    }
    about = machine(base or Path(tempfile.gettempdir()))
    click.echo(", ".join(f"{name} {value}" for name, value in about.items()), err=True)
    if about["file_system"] in MEMORY_FILE_SYSTEMS:
        click.echo("Note: the data lies in memory, where an fsync costs nothing: name a folder on a disk with --base", err=True)
    rows: list[Row] = []
    for name in names or NAMES:
        click.echo(f"{name} …", err=True)
        rows += asyncio.run(_one(benchmarks[name], base))
    click.echo("\n".join(table(rows)), err=json_file is not None and json_file.name == "-")
    if json_file is not None:
        kept = [{name: getattr(row, name) for name in (*KEPT, "value", "verdict")} for row in rows]
        json.dump({"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": about, "rows": kept}, json_file, indent=2)
        json_file.write("\n")


async def _one(benchmark: Callable[[Setting], Awaitable[list[Row]]], base: Path | None) -> list[Row]:
    async with setting(base) as place:
        return await benchmark(place)


if __name__ == "__main__":
    main()
