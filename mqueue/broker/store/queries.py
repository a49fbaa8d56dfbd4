"""The SQL is loaded here: one statement a file, named after the method that runs it; the header says what, why and
which index.
"""

from functools import cache
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

FOLDER = Path(__file__).parent / "sql"


@cache
def sql(name: str) -> bytes:
    return (FOLDER / f"{name}.sql").read_bytes().strip()


async def fetch(connection: AsyncConnection[Any], statement: str, /, **args: Any) -> list[Any]:
    """Runs a statement within a transaction and returns its rows."""
    return await (await connection.execute(sql(statement), args, binary=True)).fetchall()


def preload() -> None:
    """Loads all of them, so that no statement needs a file later, when there may be no descriptor left for it."""
    for file in FOLDER.glob("*.sql"):
        sql(file.stem)
