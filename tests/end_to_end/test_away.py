"""The short form of `python -m tests.end_to_end.away`. Order is judged by the long form only: the clock of a cold shard may be some
milliseconds behind the judge's, and of thousands of fetches a few seem to pass by what has just become due.
"""

from .away import COLD_S, report, run

ORDER = {"inversions", "untrue"}


async def test_redis_is_away_and_everything_goes_on() -> None:
    found = await run(seconds=8.0, calm_s=2.0)
    bad = {name for name, count in found.verdict.bad().items() if count}
    assert bad <= ORDER, "\n".join(report(found, 2.0))
    assert found.cold - found.start <= COLD_S
    assert found.hot - found.end <= COLD_S
