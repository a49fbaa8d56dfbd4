"""The log's volume is full: a broker that was killed starts again, and goes on by itself when there is room."""

from pathlib import Path

from mqueue.broker.wal.reserve import SIZE
from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.volume import fill, mounted
from tests.waiting import wait_until


def test_a_killed_broker_starts_on_a_full_volume(tmp_path: Path) -> None:
    with mounted(tmp_path / "volume", megabytes=16) as volume, Broker(env={"WAL_DIR": str(volume / "wal")}) as broker:
        http = Http(broker.url, broker.token)
        ids = http.put(*[b"x" * 1000] * 100)
        reserve = volume / "wal" / "reserve"
        wait_until(lambda: reserve.exists() and reserve.stat().st_size == SIZE, "the reserve is made")
        with (volume / "filler").open("wb"):
            fill(volume)
        broker.kill()
        broker.start()
        http = Http(broker.url, broker.token)
        assert [m["id"] for m in http.get(limit=100)] == ids
        wait_until(lambda: reserve.exists() and 0 < SIZE - reserve.stat().st_size < SIZE // 2, "what is left of it is taken back")
        big = [{**http.name, "payload": "eHh4" * 50_000}]
        refused = http.call("POST", "/enqueue", big)
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) > 0
        (volume / "filler").unlink()
        wait_until(lambda: http.call("POST", "/enqueue", big).status == 200, "it takes enqueues again")
        wait_until(lambda: reserve.stat().st_size == SIZE, "the reserve is whole again")
        assert broker.stop() == 0
