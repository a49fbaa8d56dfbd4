"""A Django project of one app, on SQLite. Django 6 needs Python 3.12: where the tests run on an older one,
`tests/end_to_end/documented/test_django.py` runs these with a newer Python that `make test` has found.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
NEW_ENOUGH = sys.version_info >= (3, 12)
collect_ignore_glob = [] if NEW_ENOUGH else ["*"]


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """Its file, with the tables there; Django is set up."""
    import django
    from django.core.management import call_command

    with tempfile.TemporaryDirectory(prefix="mq-") as folder, pytest.MonkeyPatch.context() as patch:
        file = os.path.join(folder, "db.sqlite3")
        patch.setenv("SHOP_DATABASE", file)
        patch.setenv("DJANGO_SETTINGS_MODULE", "shop.settings")
        patch.syspath_prepend(HERE)
        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        yield file


@pytest.fixture
def tasks(database: str) -> Iterator[Any]:
    """The module of the tasks; no notes are there."""
    from django.db import connections
    from shop import tasks
    from shop.models import Note

    Note.objects.all().delete()
    yield tasks
    connections.close_all()
