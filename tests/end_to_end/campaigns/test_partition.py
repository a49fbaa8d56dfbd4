"""The short form of `partition.py`: the leader's death, and one link of one broker."""

from tests.campaigns.partition import report, run


async def test_nothing_is_lost_or_doubled_when_one_of_two_is_gone() -> None:
    found = await run(seconds=2.0, links=("Redis cut",), pause_s=0.0, calm_s=2.0, kill_s=3.0, leads=(True,))
    assert [act.name for act in found.acts] == ["kill -9", "Redis cut"]
    assert found.good(), "\n".join(report(found))
