"""`mqueue bench` measures the installation that a broker belongs to."""

import json

import click

from mqueue.cli.client import broker_options, namespace_option, table
from mqueue.cli.types import NAME, Number

TICKS = 10  # of the progress bar a second


@click.command()
@namespace_option
@click.option("--topic", type=NAME, help="A topic that is empty, and that nobody else uses. [default: mqueue-bench]")
@click.option("--seconds", type=Number(0.1), default=3.0, show_default=True, help="How long each of the five measurements takes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@broker_options
def bench(namespace: str, topic: str | None, seconds: float, as_json: bool, url: str | None, token: str | None) -> None:
    """Measure how fast a broker serves from here: enqueues, fetches, latency.

    It enqueues into a topic of its own, and empties it again, also when it is interrupted.
    """
    import asyncio
    import signal
    import sys

    from mqueue import bench as benching

    async def run() -> list[benching.Figure]:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await benching.measure(url, token, namespace, place, seconds, progress)

    place = topic or benching.TOPIC
    with click.progressbar(length=round(benching.PHASES * seconds * TICKS), label="bench", file=sys.stderr) as bar:

        def progress(what: str, passed: float) -> None:
            bar.label = what.ljust(15)
            bar.update(round(passed * TICKS) - bar.pos)

        try:
            figures = asyncio.run(run())
        except asyncio.CancelledError:
            raise click.Abort from None
    if as_json:
        shown = [{"what": figure.what, "value": round(figure.value, 3), "unit": figure.unit} for figure in figures]
        click.echo(json.dumps({"namespace": namespace, "topic": place, "seconds": seconds, "figures": shown}, indent=2))
    else:
        table(("measured", "value", "unit"), ((figure.what, f"{figure.value:,.2f}", figure.unit) for figure in figures))
