"""No single request holds the loop of a whole broker, on real stores: what the API reads is decoded, numbered, logged
and placed there, and the turns of its loop are watched meanwhile.
"""

from collections.abc import Iterator

import aiohttp
import psutil
import pytest

from tests.processes.broker import Broker
from tests.processes.watched_loop import LoopWatch
from tests.worst_bodies import CASES, Make, method_of

TURN_MS_MAX = 250.0  # 100 on a machine of its own
RSS_MB_MAX = 400.0
DEADLINE_S = 60


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, LoopWatch]]:
    watch = LoopWatch(tmp_path_factory.mktemp("watch"))
    with Broker(env=watch.env, under=watch.under) as broker:
        assert watch.worst_ms() > 0, "a start has long turns: nothing is watched"
        yield broker, watch


@pytest.mark.parametrize(("kind", "path", "make"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_no_body_holds_a_broker(watched: tuple[Broker, LoopWatch], kind: str, path: str, make: Make) -> None:
    broker, watch = watched
    headers = {"Authorization": f"Bearer {broker.token}", "Content-Type": kind}
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        async with http.request(method_of(path), broker.url + path, data=make(), headers=headers) as answer:
            assert answer.status in (200, 400, 404, 413, 503), await answer.text()
            assert len(await answer.read()) <= 64 * 1024
        async with http.get(broker.url + "/health") as answer:
            assert answer.status == 200
    worst, rss_mb = watch.worst_ms(), psutil.Process(broker.pid).memory_info().rss / 2**20
    assert worst <= TURN_MS_MAX, f"{worst:.0f} ms in one turn"
    assert rss_mb <= RSS_MB_MAX, f"{rss_mb:.0f} MB"
