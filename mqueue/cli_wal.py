"""`mqueue wal ...`: look at a broker's log, and help where it, or its host, is damaged. Like `cli.py`: parse, call, print.

Exit codes as there, and 65: the log is damaged, 75: a broker uses it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

directory_argument: Callable[..., Any] = click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


class WalCommands(click.Group):
    """Turns what a log refuses into one line and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            from mqueue.broker.wal.errors import WalError
        except ModuleNotFoundError as error:
            raise click.ClickException(f"{error.name} is not installed: pip install 'mqueue[broker,embedded]'") from error
        try:
            return super().invoke(ctx)
        except WalError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=WalCommands)
def wal() -> None:
    """Look at a broker's write-ahead log, and help where it or its host is damaged.

    DIR is the broker's WAL directory: WAL_DIR, else wal in its data dir, or a copy of it.
    """


@wal.command()
@directory_argument
def inspect(directory: Path) -> None:
    """Print whose log it is, its segments and records. Changes nothing; a broker may run on it."""
    from mqueue.broker.wal import report

    for line in report.inspect_lines(directory):
        click.echo(line)


@wal.command()
@directory_argument
@click.pass_context
def verify(ctx: click.Context, directory: Path) -> None:
    """Read every record. Exit code 65 where one is damaged. Changes nothing; a broker may run on it."""
    from mqueue.broker.wal import report

    lines, sound = report.verify(directory)
    for line in lines:
        click.echo(line)
    ctx.exit(0 if sound else 65)


@wal.command()
@directory_argument
@click.option("--yes", is_flag=True, help="Do it; else only say what would be lost.")
def quarantine(directory: Path, yes: bool) -> None:
    """Set a damaged log aside, and put one of all records that still read in its place, so that the broker starts.

    The old log stays as shard-N.quarantine-1 (2, ...) until you remove it.
    """
    from mqueue.broker.wal import quarantine as aside
    from mqueue.broker.wal.identity import held

    with held(directory) as state:
        found = list(aside.damaged(directory, state.uuid))
        for shard, path, loss in found:
            click.echo(f"shard {shard}: {loss.records} records read; lost is what stood at:")
            for damage in loss.damages:
                click.echo(f"  {damage}")
            if yes:
                kept = aside.quarantine(path, shard, state.uuid)
                click.echo(f"shard {shard}: a new log holds the {loss.records} records; the old one is {kept}")
    if not found:
        click.echo("nothing is damaged")
    elif not yes:
        raise click.ClickException("nothing was changed: --yes does it")
