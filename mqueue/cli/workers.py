"""`mqueue workers` shows who works, and at what."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mqueue.cli.client import broker_options, connected, table

if TYPE_CHECKING:
    from mqueue import wire


@click.command()
@click.option("--namespace", help="Of this namespace only.")
@click.option("--jobs", is_flag=True, help="A line for each job that runs.")
@broker_options
def workers(namespace: str | None, jobs: bool, url: str | None, token: str | None) -> None:
    """List the workers that the brokers heard of in the last 10 seconds, or what they run."""
    with connected(url, token) as client:
        found = client.workers(namespace)
    if jobs:
        columns = ("worker", "id", "topic", "task", "attempt", "seconds", "progress", "note")
        table(columns, (_job(each.name, run) for each in found for run in each.running))
        return
    columns = ("name", "state", "version", "slots", "busy", "done", "failed", "topics")
    table(columns, (_worker(each) for each in found))


def _worker(each: "wire.Worker") -> Sequence[object]:
    done, failed = each.counts.get("ack", 0), each.counts.get("nack", 0) + each.counts.get("bury", 0)
    return each.name, each.state, each.version, each.slots, each.busy, done, failed, ",".join(each.topics)


def _job(worker: str, run: "wire.Running") -> Sequence[object]:
    progress = None if run.progress is None else f"{run.progress:.0%}"
    return worker, run.id, f"{run.namespace}/{run.topic}", run.task, run.attempt, f"{run.seconds:g}", progress, run.note
