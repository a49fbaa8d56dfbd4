"""What `import mqueue` offers is there: the names are looked up where they are first used, so no import misses one."""

import pytest

import mqueue


@pytest.mark.parametrize("name", mqueue.__all__)
def test_every_public_name_has_a_home(name: str) -> None:
    assert getattr(mqueue, name) is not None


@pytest.mark.parametrize("name", ["Bury", "MemoryLimit", "ProcessEnded", "RateLimited", "Snooze", "TimeLimit"])
def test_errors_that_users_read_are_named_as_they_are_imported(name: str) -> None:
    """Dead letters keep the text, and trackers of errors group by it: it must not move with our modules."""
    assert getattr(mqueue, name).__module__ == "mqueue"
