"""The short form of `flushes.py`: rates are not judged, a shared machine is too noisy for a few seconds of them."""

from tests.campaigns.flushes import report, run


async def test_flushall_again_and_again_loses_nothing() -> None:
    found = await run(seconds=3.0, calm_s=3.0)
    assert found.flushes >= 8
    assert found.epochs > 2
    assert found.verdict.good(), "\n".join(report(found, 3.0))
