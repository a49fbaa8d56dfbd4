"""A lead becomes a row of the table in two steps: one task looks its company up, the other stores what was found, many
at once.

DIRECTORY is the URL of the directory of companies, LEADS the SQLite file.
"""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import aiohttp

from mqueue import Bury, MQueue, RateLimited, Retry

LOOKUP, STORE = "leads", "leads-found"
PRIORITIES = {"paid": 0, "trial": 5, "list": 9}
app = MQueue()


@dataclass
class Lead:
    email: str
    source: Literal["paid", "trial", "list"]


@dataclass
class Found:
    lead: Lead
    company: str
    employees: int


@app.task(topic=LOOKUP, retry=Retry(max=20, base=0.2, cap=5))
async def enrich(lead: Lead) -> None:
    """It asks the directory. If that wants us to wait, the job waits as long as it says, in the queue and not in the
    worker.
    """
    domain = lead.email.rpartition("@")[2]
    async with aiohttp.ClientSession() as session, session.get(f"{os.environ['DIRECTORY']}/companies/{domain}") as answer:
        body = await answer.json(content_type=None)
        if answer.status == 429:
            raise RateLimited("the directory asked us to wait", retry_after=body["retry_after"])
        if answer.status == 404:
            raise Bury(f"nobody knows {domain}")
        answer.raise_for_status()
    found = Found(lead, body["company"], body["employees"])
    await store.options(priority=PRIORITIES[lead.source]).enqueue_async(found)


@app.task(topic=STORE, batch=20, batch_wait=0.3)
def store(items: list[Found]) -> None:
    """It stores many in one transaction. A job may run twice and does no harm: a lead that comes twice is one row."""
    rows = [(found.lead.email, found.lead.source, found.company, found.employees) for found in items]
    with closing(sqlite3.connect(os.environ["LEADS"], timeout=10)) as table, table:
        table.executemany("INSERT INTO leads VALUES (?, ?, ?, ?) ON CONFLICT (email) DO UPDATE SET company = excluded.company", rows)
        table.execute("INSERT INTO batches VALUES (?)", (len(items),))


def submit(leads: list[Lead]) -> list[int]:
    """Returns the ids of their jobs. A lead that comes twice is one job, and whoever pays comes first."""
    calls = [enrich.options(priority=PRIORITIES[lead.source], idempotency_key=f"{lead.source} {lead.email}").message(lead) for lead in leads]
    return [handle.id for handle in app.enqueue_many(calls)]
