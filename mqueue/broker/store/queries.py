"""Loads the SQL: one statement a file, named after the method that runs it; the header says what, why and which index."""

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "sql"


@cache
def sql(name: str) -> bytes:
    return (FOLDER / f"{name}.sql").read_bytes().strip()
