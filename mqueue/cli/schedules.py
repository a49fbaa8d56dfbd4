"""`mqueue schedules ...` shows and changes periodic tasks, as the broker keeps them. Like `main.py`, it
parses, calls and prints.
"""

from collections.abc import Sequence
from datetime import datetime

import click

from mqueue.cli.client import Command, broker_options, connected, namespace_option, table


def names_argument(command: Command) -> Command:
    """Adds the argument that names the schedules."""
    return click.argument("names", nargs=-1, required=True, metavar="NAME...")(namespace_option(broker_options(command)))


@click.group()
def schedules() -> None:
    """Look at periodic tasks; pause, resume, run and delete them."""


@schedules.command("list")
@namespace_option
@broker_options
def list_(namespace: str, url: str | None, token: str | None) -> None:
    """List the periodic tasks of a namespace, and when each comes next."""
    with connected(url, token) as client:
        found = client.schedules(namespace)
    table(
        ("name", "topic", "when", "catch_up", "state", "next", "last"),
        (
            [
                each.name, each.topic, f"every {each.every:g} s" if each.every else f"{each.cron} {each.timezone}", each.catch_up,
                "paused" if each.paused else "active", None if each.paused else _time(each.next_at), _time(each.last_at),
            ]
            for each in found
        ),
    )  # fmt: skip


@schedules.command()
@names_argument
def pause(names: Sequence[str], namespace: str, url: str | None, token: str | None) -> None:
    """Enqueue NAME no more until it is resumed, whatever is deployed meanwhile."""
    with connected(url, token) as client:
        for name in names:
            client.pause_schedule(name, namespace=namespace)
            click.echo(f"{name} paused")


@schedules.command()
@names_argument
def resume(names: Sequence[str], namespace: str, url: str | None, token: str | None) -> None:
    """Go on with NAME. What would have come meanwhile does not come now."""
    with connected(url, token) as client:
        for name in names:
            click.echo(f"{name} next {_time(client.resume_schedule(name, namespace=namespace).next_at) or 'never'}")


@schedules.command()
@click.argument("name")
@namespace_option
@broker_options
def run(name: str, namespace: str, url: str | None, token: str | None) -> None:
    """Enqueue NAME now, once, beside its times, and print the message's id."""
    with connected(url, token) as client:
        click.echo(client.run_schedule(name, namespace=namespace))


@schedules.command()
@names_argument
def delete(names: Sequence[str], namespace: str, url: str | None, token: str | None) -> None:
    """Delete NAME. A worker whose code still has it makes it again when it starts."""
    with connected(url, token) as client:
        for name in names:
            click.echo(f"{name} {'deleted' if client.delete_schedule(name, namespace=namespace) else 'gone'}")


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds").replace("+00:00", "Z")
