"""Some commands need packages that not every installation has."""

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def needed() -> Iterator[None]:
    """It surrounds imports; where a package is missing, the command ends and says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed: pip install 'mqueue[broker,embedded]'") from error
