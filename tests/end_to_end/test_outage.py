"""The short form of `outage.py`."""

from .outage import CALLS, report, run
from .rates import rate


async def test_what_is_buffered_goes_on_without_postgresql() -> None:
    found = await run(seconds=3.0, calm_s=2.0, pace=500.0, ways=("stopped",))
    [outage] = found.outages
    assert all(rate(found.history.answers, call, outage.start, outage.end) > 50 for call in CALLS), "\n".join(report(found))
    assert outage.drained_s is not None
    assert outage.drained_s < 30
    assert found.verdict.good(), "\n".join(report(found))
