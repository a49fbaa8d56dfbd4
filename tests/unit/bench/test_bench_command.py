"""`mqueue bench`: what it measures, and that its topic is empty afterwards, whatever happens."""

import asyncio
import json

import pytest
from click.testing import CliRunner
from fake_broker import FakeBroker

from mqueue import bench, wire
from mqueue.bench import Bench, BenchError
from mqueue.cli.main import main
from mqueue.client import AsyncClient, Client
from mqueue.errors import MQueueError, QuotaExceeded

SECONDS = 0.1
WHAT = [
    "enqueue, one call at a time",
    "enqueue, 16 at once",
    "enqueue, 1,000 a call",
    "fetch and ack, one consumer",
    "enqueue to delivery, p50",
    "enqueue to delivery, p99",
]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "WAIT_S", 0.02)
    monkeypatch.setattr(bench, "PAGE", 50)  # so that the broker in memory is not filled


def held(broker: FakeBroker) -> int:
    with Client(broker.url, broker.token) as client:
        return sum(topic.ready + topic.delayed + topic.leased + topic.waiting for topic in client.topics())


async def measure(broker: FakeBroker, *, progress: bench.Progress = lambda what, passed: None) -> list[bench.Figure]:
    return await bench.measure(broker.url, broker.token, "default", bench.TOPIC, SECONDS, progress)


async def test_it_measures_and_leaves_nothing(broker: FakeBroker) -> None:
    told: list[tuple[str, float]] = []
    figures = await measure(broker, progress=lambda what, passed: told.append((what, passed)))
    assert [figure.what for figure in figures] == [what.replace("1,000", "50") for what in WHAT]
    assert all(figure.value > 0 for figure in figures)
    assert held(broker) == 0
    assert list(dict.fromkeys(what for what, _ in told)) == ["one at a time", "16 at once", "bulk", "drain", "latency", "cleaning up"]
    assert [passed for _, passed in told] == sorted(passed for _, passed in told)
    assert told[-1][1] == pytest.approx(bench.PHASES * SECONDS)


async def test_cancelled_it_leaves_nothing(broker: FakeBroker) -> None:
    reached = asyncio.Event()
    running = asyncio.create_task(measure(broker, progress=lambda what, passed: reached.set() if what == "drain" else None))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert held(broker) == 0


async def test_refused_it_leaves_nothing(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncClient(broker.url, broker.token) as client:
        enqueue, calls = client.enqueue_many, []

        async def refuse(items: list[wire.EnqueueItem]) -> list[int]:
            calls.append(items)
            if len(items) > 1:
                raise QuotaExceeded("used up")
            return await enqueue(items)

        monkeypatch.setattr(client, "enqueue_many", refuse)
        with pytest.raises(MQueueError, match="used up"):
            await Bench(client, "default", "mine", SECONDS, lambda what, passed: None).run()
    assert len(calls) > 1 and held(broker) == 0


async def test_a_topic_that_is_in_use_is_left_alone(broker: FakeBroker) -> None:
    with Client(broker.url, broker.token) as client:
        client.enqueue(bench.TOPIC, b"somebody's")
    with pytest.raises(BenchError, match="is not empty"):
        await measure(broker)
    assert held(broker) == 1


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["bench", *words])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_a_table(broker: FakeBroker) -> None:
    code, said, shown = run("--url", broker.url, "--token", broker.token, "--seconds", "0.1")
    assert code == 0 and len(said.splitlines()) == 1 + len(WHAT), shown
    assert held(broker) == 0


def test_the_command_prints_json_and_nothing_else(broker: FakeBroker) -> None:
    options = ["--namespace", "acme", "--topic", "mine", "--seconds", "0.1", "--json"]
    code, said, _ = run("--url", broker.url, "--token", broker.token, *options)
    told = json.loads(said)
    assert (code, told["namespace"], told["topic"], told["seconds"]) == (0, "acme", "mine", 0.1)
    assert len(told["figures"]) == len(WHAT)


def test_without_a_broker_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("MQUEUE_URL", "MQUEUE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MQUEUE_DATA_DIR", str(tmp_path))
    code, said, shown = run()
    assert (code, said) == (1, "") and "start one on this machine: mqueue broker" in shown


def test_where_nobody_listens_it_says_so() -> None:
    code, said, shown = run("--url", "http://127.0.0.1:9", "--token", "x")
    assert (code, said) == (1, "") and "cannot reach the broker at http://127.0.0.1:9" in shown
