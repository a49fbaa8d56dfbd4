"""The commands that talk to a broker share how they choose it, reach it, and print what it says."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mqueue.client import Client

Command = Callable[..., Any]
namespace_option = click.option("--namespace", default="default", show_default=True, help="Namespace of the topic.")


def broker_options(command: Command) -> Command:
    """Adds the options that say which broker to talk to."""
    for option in (
        click.option("--token", help="Token for it. [env: MQUEUE_TOKEN; else what the broker on this machine left]"),
        click.option("--url", help="The broker's URL. [env: MQUEUE_URL; else the broker on this machine]"),
    ):
        command = option(command)
    return command


@contextmanager
def connected(url: str | None, token: str | None) -> "Iterator[Client]":
    from mqueue.client import Client

    with Client(url, token) as client:
        try:
            yield client
        except (UnicodeError, OverflowError) as error:
            raise click.ClickException(f"an argument cannot be sent: {error}") from error


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a row a line, below the names of the columns. None is left empty; no cell can send control
    codes to the terminal.
    """
    lines = [columns, *(["" if cell is None else harmless(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())


def harmless(text: str) -> str:
    """Makes a text that somebody else has written safe for a terminal: control characters, and all others that have
    no shape, are escaped.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
