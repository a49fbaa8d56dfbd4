"""No single request holds the loop, whatever it says: the turns of a server's loop are watched while it is sent the
worst bodies that are known, on every route that takes one, in JSON and in MessagePack.
"""

from collections.abc import Iterator

import aiohttp
import pytest
from http_fake import bearer
from watched_api import Watched, watched

from tests.worst_bodies import CASES, SIZE, Make, method_of

TURN_MS_MAX = 100.0
RSS_MB_MAX = 400.0
DEADLINE_S = 60


@pytest.fixture(scope="module")
def server() -> Iterator[Watched]:
    with watched() as running:
        yield running


@pytest.mark.parametrize(("kind", "path", "make"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_no_body_holds_the_loop(server: Watched, kind: str, path: str, make: Make) -> None:
    body = make()
    assert len(body) <= SIZE
    server.told()
    headers = bearer() | {"Content-Type": kind}
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.request(method_of(path), server.url + path, data=body, headers=headers) as answer,
    ):
        assert answer.status in (200, 400, 404, 413), await answer.text()
        assert len(await answer.read()) <= 64 * 1024
    told = server.told()
    assert told["worst"] <= TURN_MS_MAX, f"{told['worst']:.0f} ms in one turn"
    assert told["rss_mb"] <= RSS_MB_MAX, f"{told['rss_mb']:.0f} MB"
