"""The command chooses benchmarks, runs them and prints their results."""

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO

import click

from benchmarks import backlog, cores, drain, enqueue, latency, share
from benchmarks.row import Row, table
from benchmarks.setting import MEMORY_FILE_SYSTEMS, Setting, machine, setting

NAMES = ("enqueue", "share", "drain", "cores", "latency", "backlog")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES), metavar="[NAME...]")
@click.option("--messages", type=click.IntRange(100_000), default=backlog.MESSAGES, show_default=True, help="Depth of the deep backlog.")
@click.option("--base", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder for the data while it runs: on a disk.")
@click.option("--json", "json_file", type=click.File("w"), help="Write the result there too; - for stdout.")
def main(names: Sequence[str], messages: int, base: Path | None, json_file: IO[str] | None) -> None:
    """How fast it is here. NAME: enqueue, share, drain, cores, latency, backlog; all if none is named."""
    benchmarks: dict[str, Callable[[Setting], Awaitable[list[Row]]]] = {
        "enqueue": enqueue.run,
        "share": share.run,
        "drain": drain.run,
        "cores": cores.run,
        "latency": latency.run,
        "backlog": lambda place: backlog.run(place, messages),
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
        fields = ("benchmark", "what", "unit", "value", "runs", "target", "verdict")
        json.dump({"machine": about, "rows": [{f: getattr(row, f) for f in fields} for row in rows]}, json_file, indent=2)
        json_file.write("\n")


async def _one(benchmark: Callable[[Setting], Awaitable[list[Row]]], base: Path | None) -> list[Row]:
    async with setting(base) as place:
        return await benchmark(place)


if __name__ == "__main__":
    main()
