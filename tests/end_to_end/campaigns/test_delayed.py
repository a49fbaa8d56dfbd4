"""The short form of `delayed.py`. Its bounds are those of a machine that is slow and busy."""

from tests.campaigns.delayed import report, run


async def test_first_fetches_hardly_notice_rows_that_wait_for_a_far_time() -> None:
    found = await run(rows=100_000, firsts=20)
    assert found.good(p99_s=1.0, step_s=2.0), "\n".join(report(found))
