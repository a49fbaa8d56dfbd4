"""What `import mqueue` offers is there: the names are looked up where they are first used, so no import misses one."""

import pytest

import mqueue


@pytest.mark.parametrize("name", mqueue.__all__)
def test_every_public_name_has_a_home(name: str) -> None:
    assert getattr(mqueue, name) is not None
