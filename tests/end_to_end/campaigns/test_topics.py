"""The short form of `topics.py`. Its bounds are those of a machine that is slow and busy."""

from tests.campaigns.topics import report, run


async def test_a_thousand_topics_are_served_soon_after_redis_was_emptied() -> None:
    found = await run(topics=1_000, pollers=20)
    assert found.good(served_s=20.0, p99_s=1.0, core=0.9), "\n".join(report(found))
