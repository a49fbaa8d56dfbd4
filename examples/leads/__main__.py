"""The program enriches 60 leads from a directory that takes only so many requests a second. Ten of the leads come
twice, and nobody knows two of them.
"""

# ruff: noqa: T201

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from examples.leads.directory import Directory
from examples.leads.tasks import LOOKUP, STORE, Lead, submit
from examples.stage import first_line, stage

KNOWN = 58
UNKNOWN = 2
TWICE = 10
SCHEMA = """
CREATE TABLE leads (email TEXT PRIMARY KEY, source TEXT, company TEXT, employees INTEGER);
CREATE TABLE batches (size INTEGER);
"""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="leads-") as place, Directory() as directory:
        file = Path(place) / "leads.sqlite"
        with closing(sqlite3.connect(file)) as table:
            table.executescript(SCHEMA)
            with stage("examples.leads.tasks", concurrency=30, DIRECTORY=directory.url, LEADS=str(file)) as scene:
                ids = submit(leads())
                print(f"{len(ids)} leads are enqueued as {len(set(ids))} jobs; the directory takes 40 requests a second.", flush=True)

                def count() -> int:
                    return int(table.execute("SELECT count(*) FROM leads").fetchone()[0])

                ended = scene.until(lambda: count() == KNOWN and len(scene.client.dead_letters(LOOKUP)) == UNKNOWN, LOOKUP, STORE)
                dead = scene.client.dead_letters(LOOKUP)
                rows = table.execute("SELECT source, count(*), sum(employees) FROM leads GROUP BY source ORDER BY min(rowid)").fetchall()
                batches = table.execute("SELECT count(*), max(size) FROM batches").fetchone()
    for source, number, employees in rows:
        print(f"{source:<14} {number:>4} leads, {employees:,} employees")
    print(f"lookups        {directory.answered:>4}, and {directory.refused} that came too early")
    print(f"batches        {batches[0]:>4}, up to {batches[1]}")
    print(f"dead letters   {len(dead):>4}")
    for letter in dead:
        print(f"  {first_line(letter)}")
    return 0 if ended and len(set(ids)) == KNOWN + UNKNOWN else 1


def leads() -> list[Lead]:
    """Leads from a bought list are enqueued first, and yet are not the first to be looked up."""
    found = [Lead(f"buyer{n}@company{n}.example", "list" if n < 30 else "trial" if n < 45 else "paid") for n in range(KNOWN)]
    return [*found, *(Lead(f"buyer@unknown{n}.example", "list") for n in range(UNKNOWN)), *found[:TWICE]]


if __name__ == "__main__":
    sys.exit(main())
