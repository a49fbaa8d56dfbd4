"""Fixtures for real stores: the embedded PostgreSQL and Valkey."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARDS = 2


def _make_data_dir() -> Path:
    """A short path (unix sockets) that PostgreSQL's account may enter (as root pytest's own folders are closed to
    it).
    """
    folder = Path(tempfile.mkdtemp(prefix="mq-"))
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return folder


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """An empty data dir for one test."""
    folder = _make_data_dir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stores():
    """`StoreUrls` of embedded stores with SHARDS databases, shared by the whole run: leave nothing behind in them."""
    from mqueue.broker.embedded import EmbeddedStores

    folder = _make_data_dir()
    embedded = EmbeddedStores(folder, SHARDS)
    with asyncio.Runner() as runner:
        urls = runner.run(embedded.start())
        try:
            yield urls
        finally:
            runner.run(embedded.stop())
            shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """A missing tool skips a test at home; in CI it fails it, since a skipped test proves nothing there (but see
    `may_skip`).
    """
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") and not item.get_closest_marker("may_skip"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {reason}"
    return report
