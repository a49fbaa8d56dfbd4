"""The short form of `deploy.py`."""

from tests.campaigns import deploy


def test_a_deploy_spends_no_attempt_and_loses_nothing() -> None:
    found = deploy.run(restarts=2, job_s=1.0)
    said = "\n".join(deploy.report(found))
    assert found.good(), said
    assert max(found.began.values()) == 2, f"the hasty one handed nothing back\n{said}"
