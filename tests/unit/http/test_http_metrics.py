"""The metrics page and the instruments behind it."""

import aiohttp
import pytest

from mqueue.broker import metrics as module
from mqueue.broker.http import HttpServer, metrics_app
from mqueue.broker.metrics import Metrics


async def test_the_page() -> None:
    metrics = Metrics()
    metrics.shard(0).health.set(1)
    metrics.shard(1).buffer_queue_depth.set(5)
    server = HttpServer(metrics_app(metrics), "127.0.0.1", 0)
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            async with http.get(server.url + "/metrics") as response:
                text = await response.text()
                assert response.status == 200
                assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert 'mqueue_shard_health{shard="0"} 1.0' in text
            assert 'mqueue_buffer_queue_depth{shard="1"} 5.0' in text
            async with http.get(server.url + "/") as response:
                assert response.status == 404
            async with http.post(server.url + "/metrics") as response:
                assert response.status == 405
    finally:
        await server.stop()


def test_namespaces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMESPACES_MAX", 2)
    metrics = Metrics()
    for namespace in ("a", "b", "c", "d", "a"):
        metrics.enqueued(namespace, 3)
    lines = [line for line in metrics.render().decode().splitlines() if line.startswith("mqueue_enqueue_total{")]
    assert sorted(lines) == [
        'mqueue_enqueue_total{namespace="(other)"} 6.0',
        'mqueue_enqueue_total{namespace="a"} 6.0',
        'mqueue_enqueue_total{namespace="b"} 3.0',
    ]


def test_two_brokers_in_one_process_do_not_share() -> None:
    first, second = Metrics(), Metrics()
    first.acked("n", 1)
    assert "mqueue_ack_total{" not in second.render().decode()


def test_every_instrument_of_a_shard_is_shown() -> None:
    metrics = Metrics()
    shard = metrics.shard(3)
    assert metrics.shard(3) is shard
    metrics.script("fetch")(0.001)
    text = metrics.render().decode()
    for name in (
        "ready_queue_depth",
        "delayed_depth",
        "leased",
        "flush_rows_total",
        "elided_total",
        "wal_bytes",
        "leader",
        "epoch",
    ):
        assert f'mqueue_{name}{{shard="3"}} 0.0' in text
    assert 'mqueue_script_seconds_count{script="fetch"} 1.0' in text
