"""The short form of `shards/away.py`. Its bounds are those of a machine that is slow and busy."""

from tests.campaigns.shards.away import report, run


async def test_one_shard_of_two_is_away_and_the_other_serves_on() -> None:
    found = await run(seconds=8.0, rate=40.0)
    assert found.good(throughput=0.7, least_s=1.0), "\n".join(report(found))
