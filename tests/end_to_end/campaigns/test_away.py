"""The short form of `python -m tests.campaigns.away`."""

from mqueue.torture.run import details
from tests.campaigns.away import COLD_S, report, run


async def test_redis_is_away_and_everything_goes_on() -> None:
    found = await run(seconds=8.0, calm_s=2.0)
    assert found.verdict.good(), "\n".join([*report(found, 2.0), *details(found.verdict, found.history)])
    assert found.cold - found.start <= COLD_S
    assert found.hot - found.end <= COLD_S
