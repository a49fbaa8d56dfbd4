"""The short form of `resume.py`."""

from tests.campaigns import resume


def test_workers_go_on_after_a_restart_and_a_cut() -> None:
    found = resume.run(1, ways=("restart", "cut"), away_s=(0.5, 1.0))
    said = "\n".join([*resume.report(found), *found.untrue])
    assert found.good(resume_s=15.0), said  # five seconds where nothing else keeps the machine busy
