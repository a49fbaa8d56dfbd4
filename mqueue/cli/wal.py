"""`mqueue wal ...` looks at a broker's log, and helps where it, or its host, is damaged. Like `main.py`, it
parses, calls and prints.

Its exit codes are those of `main.py`, and 65: the log is damaged, 75: a broker uses it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqueue.cli.extras import needed
from mqueue.cli.types import Number

if TYPE_CHECKING:
    from mqueue.broker.embedded import StoreUrls

directory_argument: Callable[..., Any] = click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
data_dir_option: Callable[..., Any] = click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="FOLDER", help="The data dir of a broker that runs here."
)


class WalCommands(click.Group):
    """Turns the errors of a log into one line and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        with needed():
            from mqueue.broker.wal.errors import WalError
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


@wal.command()
@directory_argument
@click.option("--dry-run", is_flag=True, help="Only say what would be replayed.")
@click.option("--wait", type=Number(0), default=60.0, show_default=True, help="Seconds to wait for what the brokers do: recover, flush.")
@data_dir_option
@click.pass_context
def replay(ctx: click.Context, directory: Path, dry_run: bool, wait: float, data_dir: Path | None) -> None:
    """Bring what only this log has into the stores: of DATABASE_URLS and REDIS_ADDRS, or of the broker that runs on the
    data dir.

    For a broker whose host is dead: DIR is its WAL directory, or a copy of it. Messages come out of the other brokers
    at once. It may be said again, and harms nothing if the broker comes back. Exit code 1 while the stores do not have
    all of it.
    """
    import asyncio

    from mqueue.broker.recovery import rescue
    from mqueue.broker.wal.identity import State, held

    async def run(state: State) -> bool:
        everything = True
        async for done in rescue.rescue(directory, state, _stores(data_dir), dry_run=dry_run, wait_s=wait):
            would = "to replay" if dry_run else "replayed"
            click.echo(f"shard {done.shard}: {would}: {done.messages} messages, {done.ended} of them ended; {done.outcomes} outcomes too late")
            if done.brought:
                click.echo(f"shard {done.shard}: brought to Redis: {done.brought} messages")
            if done.left:
                click.echo(f"shard {done.shard}: {done.left} records are of the present epoch, in Redis or for it, and not flushed yet")
                everything = False
        return everything

    with held(directory) as state:
        ctx.exit(0 if asyncio.run(run(state)) or dry_run else 1)


def _stores(data_dir: Path | None) -> "StoreUrls":
    from mqueue.broker import embedded
    from mqueue.broker.config import load

    settings = load({"data_dir": data_dir})
    if settings.embedded:
        return embedded.store_urls(settings.data_dir)
    return embedded.StoreUrls(settings.database_urls, settings.redis_addrs, settings.redis_password or "")


@wal.command()
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--node", type=click.IntRange(1, 1023), help="The number of a broker whose directory is lost, in the place of DIR.")
@click.option("--lost", is_flag=True, help="With --node: the directory is lost for good, and so is what only its log had.")
@data_dir_option
def retire(directory: Path | None, node: int | None, lost: bool, data_dir: Path | None) -> None:
    """Give a broker's node number back, when all of its log is in PostgreSQL. No broker starts on DIR afterwards.

    For a broker that never comes back: there are 1023 numbers. The databases are those of DATABASE_URLS, or of the
    broker that runs on the data dir. Where its disk is gone, and DIR with it, --node names it: what is known of its log
    is printed, and --lost does it.
    """
    import asyncio

    from mqueue.broker.recovery import retire as retiring
    from mqueue.broker.wal.identity import held

    if (directory is None) == (node is None) or (lost and node is None):
        raise click.UsageError("name the WAL directory, or, where it is lost, the node number by --node (with --lost to do it)")
    if directory is not None:
        with held(directory) as state:
            free = asyncio.run(retiring.retire(directory, state, _stores(data_dir).database_urls))
        click.echo(f"node number {free} is free; nothing needs {directory} any more")
        return

    async def run(number: int) -> None:
        async for line in retiring.lost(number, _stores(data_dir), acknowledged=lost):
            click.echo(line)

    assert node is not None
    asyncio.run(run(node))
    click.echo(f"node number {node} is free")
