"""The commands parse, call and print. What a command needs is imported when it runs, so that `mqueue --help` is quick.

Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, 78 wrong configuration.
"""

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqueue.cli.bench import bench
from mqueue.cli.client import broker_options, connected, harmless, namespace_option, table
from mqueue.cli.extras import needed
from mqueue.cli.schedules import schedules
from mqueue.cli.types import DURATION, NAME, Number
from mqueue.cli.wal import wal
from mqueue.cli.workers import workers
from mqueue.errors import MQueueError

if TYPE_CHECKING:
    from mqueue.broker.config import Settings
    from mqueue.client.protocol import EnqueueOptions


class Commands(click.Group):
    """Turns the errors we raise on purpose into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MQueueError as error:
            click.echo("\n".join(map(harmless, f"Error: {error.detail}".split("\n"))), err=True)
            ctx.exit(getattr(error, "exit_code", 1))


data_dir_option = click.option("--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="The broker's data dir.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mqueue")
def main() -> None:
    """A job system for Python, and a queue over HTTP for everybody else."""


@main.command()
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port of the HTTP API. [default: 8080]")
@click.option("--metrics-port", type=int, help="Port of the metrics. [default: 2112]")
@data_dir_option
@click.option("--shards", type=int, help="Databases of the embedded PostgreSQL. [default: 1]")
@click.option("--allow-cold", is_flag=True, default=None, help="Start without a Redis that refuses its password, name or certificate.")
@click.option("--join", type=click.Path(path_type=Path), metavar="DIR", help="Use the stores of the broker that runs on this data dir.")
@click.pass_context
def broker(ctx: click.Context, /, join: Path | None, **flags: Any) -> None:
    """Run a broker, with its own PostgreSQL and Valkey unless DATABASE_URLS and REDIS_ADDRS are set.

    With --join it shares the stores of one that runs here already, on free ports unless they are named, and with a log
    of its own.
    """
    if join is None:

        def read() -> "Settings":
            return _settings(flags)
    else:
        from mqueue.broker import embedded

        joined = embedded.join(join) | {name: value for name, value in flags.items() if value is not None}

        def read() -> "Settings":
            return _settings(joined, {"jwt_secret": embedded.kept_secret(join)})

    settings = read()
    from mqueue import logs
    from mqueue.broker import app

    logs.configure(settings.log_level, settings.log_format)
    ctx.exit(app.run(settings, read))


@main.command()
@data_dir_option
@click.option("--namespace", "namespaces", multiple=True, help="Allow this namespace only. Repeatable. [default: all]")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(["read", "write", "admin"]), help="Repeatable. [default: all]")
@click.option("--ttl", type=DURATION, default="1h", show_default=True, help="How long it is valid: 10s, 5m, 1h, 2d.")
@click.option("--subject", default="cli", show_default=True, help="Whom it is for.")
def token(data_dir: Path | None, namespaces: Sequence[str], scopes: Sequence[str], ttl: float, subject: str) -> None:
    """Print a token signed with JWT_SECRET, or with the secret kept in the broker's data dir."""
    settings = _settings({"data_dir": data_dir})
    from mqueue import clock, paths, tokens

    secret = settings.jwt_secret or paths.read_jwt_secret(settings.data_dir)
    if secret is None:
        raise click.ClickException(f"no secret: set JWT_SECRET, or start a broker with the data dir {settings.data_dir} first")
    now = clock.SystemClock().wall_us() / 1e6
    click.echo(tokens.issue(secret, subject=subject, now=now, ttl=ttl, namespaces=namespaces, scopes=scopes))


@main.command()
def migrate() -> None:
    """Bring the databases of DATABASE_URLS up to date. (A broker does this by itself when it starts.)"""
    settings = _settings({})
    if settings.embedded:
        raise click.ClickException("DATABASE_URLS is not set; the embedded databases are brought up to date by the broker")
    from mqueue.broker.store.migrate import migrate_all

    for line in migrate_all(settings.database_urls):
        click.echo(line)


@main.command()
def settings() -> None:
    """Print every setting of a broker at its default: a file for .env, or for systemd's EnvironmentFile."""
    with needed():
        from mqueue.broker.config import example
    click.echo(example(), nl=False)


@main.command()
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@click.option("--namespace", type=NAME, help="Fetch from this namespace. [default: the tasks' own]")
@click.option("--topic", "topics", type=NAME, multiple=True, help="Fetch from this topic only. Repeatable. [default: the tasks' topics]")
@click.option("--exclude", type=NAME, multiple=True, metavar="TOPIC", help="Do not fetch from this topic. Repeatable.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Jobs at the same time.")
@click.option("--grace", type=DURATION, default="30s", show_default=True, help="Time for running jobs to end when it stops.")
@click.option("--processes", type=click.IntRange(1, 1_000), help="Workers under one parent that keeps them running. [default: one, alone]")
@click.option("--max-jobs", type=click.IntRange(1), help="Stop after so many jobs; with --processes another takes its place.")
@click.option("--max-memory-mb", type=Number(1), help="The same once it holds more MiB than this.")
@click.option("--reload", is_flag=True, help="For development: start anew when a .py file below the working directory changes.")
@click.option("--probe-port", type=click.IntRange(0, 65535), help="Serve /live, /ready and /metrics here. 0: any free port, logged.")
@click.option("--probe-host", default="0.0.0.0", show_default=True, help="Address of the probe port.")
@click.option("--name", type=NAME, help="What it is called in `mqueue workers`. [default: made of host and process]")
@broker_options
@click.pass_context
def worker(ctx: click.Context, /, modules: Sequence[str], **options: Any) -> None:
    """Run the tasks that MODULE... define."""
    from mqueue import logs
    from mqueue.worker.program import program

    logs.configure()
    ctx.exit(program.run(modules, **options))


@main.command()
@click.argument("topic")
@click.argument("payload", metavar="JSON")
@namespace_option
@click.option("--priority", type=click.IntRange(-(2**31), 2**31 - 1), help="Lower comes first. [default: 0]")
@click.option("--delay", type=DURATION, help="Deliver after this time: 10s, 5m, 1h, 2d.")
@click.option("--ttl", type=DURATION, help="Forget it when it was not delivered within this time.")
@click.option("--key", "idempotency_key", help="Idempotency key: the same key again, within 24 hours, enqueues nothing.")
@click.option("--unique-key", help="While a message of TOPIC waits under the same one, print its id instead.")
@click.option("--max-retries", type=click.IntRange(0, 1000), help="Retries before it becomes a dead letter.")
@broker_options
def enqueue(topic: str, payload: str, url: str | None, token: str | None, **options: Any) -> None:
    """Enqueue one message with the payload JSON, and print its id."""
    body = _json(payload)
    given: EnqueueOptions = {name: value for name, value in options.items() if value is not None}  # type: ignore[assignment]
    with connected(url, token) as client:
        click.echo(client.enqueue(topic, body, **given))


@main.command()
@click.option("--namespace", help="Of this namespace only.")
@broker_options
def topics(namespace: str | None, url: str | None, token: str | None) -> None:
    """List topics and how many messages each holds, by state."""
    columns = ("namespace", "topic", "shard", "ready", "delayed", "leased", "waiting", "dead")
    with connected(url, token) as client:
        table(columns, map(attrgetter(*columns), client.topics(namespace)))


@main.group()
def dlq() -> None:
    """Look at dead letters, and delete them."""


@dlq.command("list")
@click.argument("topic")
@namespace_option
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many, by id.")
@click.option("--after", type=int, default=0, help="Only ids above this one.")
@broker_options
def dlq_list(*, topic: str, namespace: str, limit: int, after: int, url: str | None, token: str | None) -> None:
    """List the dead letters of TOPIC."""
    with connected(url, token) as client:
        dead = client.dead_letters(topic, namespace=namespace, limit=limit, after=after)
    table(
        ("id", "attempts", "died_at", "error"),
        ((each.id, each.attempts, each.died_at.isoformat(timespec="seconds"), _first_line(each.error)) for each in dead),
    )


@dlq.command("delete")
@click.argument("topic")
@click.argument("ids", nargs=-1, required=True, type=int, metavar="ID...")
@namespace_option
@broker_options
def dlq_delete(topic: str, ids: Sequence[int], namespace: str, url: str | None, token: str | None) -> None:
    """Delete dead letters of TOPIC by id. One that is not there is `gone`."""
    with connected(url, token) as client:
        for verdict in client.delete_dead(topic, ids, namespace=namespace):
            click.echo(f"{verdict.id} {verdict.status}")


@main.command()
@data_dir_option
def verify(data_dir: Path | None) -> None:
    """Check that each topic's ledger adds up: of DATABASE_URLS, or of the broker that runs on the data dir. Exit code 1
    if one does not.
    """
    import asyncio

    settings = _settings({"data_dir": data_dir})
    from mqueue.broker import embedded
    from mqueue.broker.store import verify

    urls = settings.database_urls or embedded.database_urls(settings.data_dir)
    lines = asyncio.run(verify.ledgers(urls))
    columns = ("topic", "shard", "enqueued", "acked", "dead", "expired", "purged", "cancelled", "rows", "refused", "drift")
    table(columns, map(attrgetter(*columns), lines))
    if any(line.drift for line in lines):
        raise click.ClickException("the ledger does not add up where drift is not 0: messages were lost, or counted twice")


@main.command()
@click.option("--minutes", type=Number(0.1), default=10.0, show_default=True, help="How long; each fault is reached at least once.")
@click.option("--seed", type=int, help="The same seed chooses the same faults. [default: a random one]")
@click.option("--faults", help="Only these, comma-separated. [default: all]")
@click.pass_context
def torture(ctx: click.Context, /, *, minutes: float, seed: int | None, faults: str | None) -> None:
    """Put brokers and stores of its own under load and faults; exit code 1 if anything was lost,
    doubled or out of order.
    """
    import asyncio
    import random

    from mqueue import logs
    from mqueue.torture import run

    logs.configure("error")
    names = faults.split(",") if faults else run.NAMES
    if unknown := sorted(set(names) - set(run.NAMES)):
        raise click.BadParameter(f"no such fault: {', '.join(unknown)}; there are {', '.join(run.NAMES)}", param_hint="--faults")
    chosen = random.randrange(1 << 31) if seed is None else seed
    click.echo(f"seed {chosen}", err=True)
    result = asyncio.run(run.torture(minutes, chosen, names))
    click.echo("\n".join(run.table(result)))
    for line in run.details(result.verdict, result.history):
        click.echo(line, err=True)
    ctx.exit(0 if result.good() else 1)


main.add_command(bench)
main.add_command(wal)
main.add_command(workers)
main.add_command(schedules)


def _settings(flags: dict[str, Any], unless_named: dict[str, Any] | None = None) -> "Settings":
    with needed():
        from mqueue.broker.config import load
    return load(flags, unless_named=unless_named)


def _json(text: str) -> bytes:
    """Returns `text`, once it is known to be JSON (NaN is not) in UTF-8."""
    import json

    def refuse(name: str) -> None:
        raise ValueError(f"there is no {name}")

    try:
        json.loads(text, parse_constant=refuse)
        return text.encode()
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="JSON") from error


def _first_line(text: str | None) -> str:
    return text.strip().splitlines()[0][:80] if text and text.strip() else ""
