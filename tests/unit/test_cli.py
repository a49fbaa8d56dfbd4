"""The command line: what is parsed, called, printed, and the exit codes."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import jwt
import msgspec
import pytest
from click.testing import CliRunner

from mqueue import client, paths, wire
from mqueue.broker.embedded import EmbeddedError
from mqueue.cli.main import DURATION, main
from mqueue.errors import BufferFull

SECRET = "s" * 32


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URLS", "REDIS_ADDRS", "JWT_SECRET", "MQUEUE_URL", "MQUEUE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MQUEUE_DATA_DIR", str(tmp_path / "data"))


def run(*words: str):
    return CliRunner().invoke(main, words)


class FakeClient:
    """Stands for `mqueue.client.Client`; keeps what it was asked."""

    calls: ClassVar[list[tuple]] = []

    def __init__(self, url=None, token=None):
        self.calls.append(("open", url, token))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def enqueue(self, topic, payload, **options):
        self.calls.append(("enqueue", topic, payload, options))
        return 2**60

    def dead_letters(self, topic, *, namespace, limit, after):
        at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        return [
            wire.DeadItem(
                id=7,
                namespace=namespace,
                topic=topic,
                priority=0,
                payload=b"",
                attempts=4,
                created_at=at,
                died_at=at,
                error="Boom\nat",
            )
        ]

    def delete_dead(self, topic, ids, *, namespace):
        return [wire.Verdict(id, "gone") for id in ids]

    def topics(self, namespace=None):
        return [wire.Topic(namespace="default", topic="mails", shard=0, ready=1, delayed=2, leased=3, waiting=4, dead=5)]

    def schedules(self, namespace="default"):
        at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        common = {"namespace": namespace, "topic": "mails", "priority": 0, "timezone": "UTC", "next_at": at}
        return [
            wire.Schedule(name="beat", every=30.0, catch_up="skip", paused=True, last_at=at, **common),
            wire.Schedule(name="nightly", cron="0 4 * * *", catch_up="one", paused=False, **common),
        ]

    def pause_schedule(self, name, *, namespace):
        self.calls.append(("pause", name, namespace))

    def resume_schedule(self, name, *, namespace):
        self.calls.append(("resume", name, namespace))
        return self.schedules(namespace)[0]

    def run_schedule(self, name, *, namespace):
        return 2**60

    def delete_schedule(self, name, *, namespace):
        return name == "beat"


@pytest.fixture
def calls(monkeypatch):
    monkeypatch.setattr(FakeClient, "calls", [])
    monkeypatch.setattr(client, "Client", FakeClient)
    return FakeClient.calls


@pytest.mark.parametrize(
    ("text", "seconds"), [("10", 10), ("1.5", 1.5), ("250ms", 0.25), ("10s", 10), ("5m", 300), ("1h", 3600), ("2d", 172_800)]
)
def test_durations(text, seconds):
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1s", "1w", "1h30m", "101000d", "9" * 400])
def test_wrong_durations_are_wrong_usage(text):
    result = run("token", "--ttl", text)
    assert result.exit_code == 2 and "no duration" in result.stderr


def test_help_imports_nothing_heavy():
    heavy = "psycopg redis pydantic aiohttp urllib3 starlette uvicorn msgspec"
    code = (
        "import sys; from mqueue.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('loaded:', [name for name in {heavy!r}.split() if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.endswith("loaded: []\n")


def test_token_has_what_was_asked_for_and_nothing_else(monkeypatch):
    monkeypatch.setenv("JWT_SECRET", SECRET)
    words = ("--namespace", "a", "--namespace", "b", "--scope", "read", "--scope", "write", "--ttl", "5m", "--subject", "me")
    result = run("token", *words)
    claims = jwt.decode(result.stdout.strip(), SECRET, algorithms=["HS256"])
    assert result.stdout.count("\n") == 1 and result.stderr == ""
    assert claims.pop("exp") - claims.pop("iat") == 300
    assert claims == {"sub": "me", "allowed_namespaces": ["a", "b"], "scopes": ["read", "write"]}


def test_token_without_limits_from_the_kept_secret(tmp_path):
    kept = paths.keep_jwt_secret(tmp_path / "data")
    assert paths.keep_jwt_secret(tmp_path / "data") == kept and len(kept) >= 32
    assert (tmp_path / "data" / paths.SECRET_FILE).stat().st_mode & 0o777 == 0o600
    claims = jwt.decode(run("token").stdout.strip(), kept, algorithms=["HS256"])
    assert set(claims) == {"sub", "iat", "exp"}


def test_token_without_a_secret_says_what_to_do():
    result = run("token")
    assert result.exit_code == 1 and "set JWT_SECRET" in result.stderr and result.stdout == ""


def test_wrong_configuration_is_78_in_one_line(monkeypatch):
    monkeypatch.setenv("MQUEUE_REDY_MAX", "1")
    result = run("broker")
    assert result.exit_code == 78
    assert result.stderr.count("\n") == 1 and "did you mean MQUEUE_READY_MAX?" in result.stderr


def test_broker_runs_with_flags_and_returns_its_code(monkeypatch, tmp_path):
    seen = []
    app = ModuleType("mqueue.broker.app")
    app.run = lambda settings, read: seen.extend((settings, read())) or 3
    _stand_in(monkeypatch, "mqueue.broker", "app", app)
    assert run("broker", "--port", "9", "--shards", "2", "--data-dir", str(tmp_path / "x")).exit_code == 3
    assert (seen[0].port, seen[0].shards, seen[0].data_dir, seen[0].metrics_port) == (9, 2, tmp_path / "x", 2112)
    assert seen[1] == seen[0], "SIGHUP reads the same flags again"


def test_an_error_on_purpose_is_one_line(monkeypatch):
    def fail(settings, read):
        raise EmbeddedError("the folder is in use")

    app = ModuleType("mqueue.broker.app")
    app.run = fail
    _stand_in(monkeypatch, "mqueue.broker", "app", app)
    result = run("broker")
    assert (result.exit_code, result.stderr) == (1, "Error: the folder is in use\n")


def test_worker_gets_everything(monkeypatch):
    seen = []
    program = ModuleType("mqueue.worker.program.program")
    program.run = lambda modules, **options: seen.append((tuple(modules), options)) or 0
    _stand_in(monkeypatch, "mqueue.worker.program", "program", program)
    assert run("worker", "a.b", "c", "--topic", "t", "--concurrency", "5", "--url", "http://b", "--grace", "1m").exit_code == 0
    options = {"namespace": None, "topics": ("t",), "concurrency": 5, "url": "http://b", "token": None, "grace": 60.0, "name": None}
    options |= {"exclude": (), "processes": None, "max_jobs": None, "max_memory_mb": None, "reload": False}
    options |= {"probe_host": "0.0.0.0", "probe_port": None}
    assert seen == [(("a.b", "c"), options)]


def test_enqueue_prints_the_id(calls):
    result = run("enqueue", "mails", '{"to": "é"}', "--priority", "-5", "--delay", "10s", "--key", "k", "--url", "http://b")
    assert (result.exit_code, result.stdout) == (0, f"{2**60}\n")
    options = {"namespace": "default", "priority": -5, "delay": 10.0, "idempotency_key": "k"}
    assert calls == [("open", "http://b", None), ("enqueue", "mails", '{"to": "é"}'.encode(), options)]


@pytest.mark.parametrize("payload", ["{to}", "NaN", '{"a": [-Infinity]}', '"\udcff"', "[" * 100_000, "9" * 5000])
def test_enqueue_refuses_what_is_not_json(calls, payload):
    result = run("enqueue", "mails", payload)
    assert result.exit_code == 2 and "not JSON" in result.stderr and calls == []


@pytest.mark.parametrize("option", ["--priority=99999999999999999999999", "--priority=-2147483649", "--max-retries=-1", "--max-retries=1001"])
def test_numbers_a_message_cannot_have_are_wrong_usage(calls, option):
    result = run("enqueue", "mails", "1", option)
    assert result.exit_code == 2 and "is not in the range" in result.stderr and calls == []


@pytest.mark.parametrize(
    "words",
    [
        ("topics", "--url", "http://h:notaport"),
        ("topics", "--url", "http://[::1"),
        ("topics", "--url", "http://me:hidden@127.0.0.1:1"),
        ("topics", "--url", "http://127.0.0.1:1", "--token", "hid\nden"),
        ("topics", "--url", "http://127.0.0.1:1", "--namespace", "\udcff"),
        ("enqueue", "\udcff", "1", "--url", "http://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_sent_is_told_in_a_line_without_secrets(words):
    result = run(*words)
    assert (result.exit_code, result.stderr.count("\n"), result.stderr[:7]) == (1, 1, "Error: ")
    assert "hid" not in result.stderr


def test_a_broker_that_refuses_is_one_line(calls, monkeypatch):
    def refuse(*_, **__):
        raise BufferFull("no room")

    monkeypatch.setattr(FakeClient, "enqueue", refuse)
    result = run("enqueue", "mails", "1")
    assert (result.exit_code, result.stderr) == (1, "Error: no room\n")


def test_dead_letters_are_listed_and_deleted(calls):
    assert run("dlq", "list", "mails").stdout.splitlines() == [
        "id  attempts  died_at                    error",
        "7   4         2026-01-02T03:04:05+00:00  Boom",
    ]
    assert run("dlq", "delete", "mails", "7", "8").stdout == "7 gone\n8 gone\n"


def test_topics_are_listed(calls):
    head, line = run("topics").stdout.splitlines()
    assert head.split() == ["namespace", "topic", "shard", "ready", "delayed", "leased", "waiting", "dead"]
    assert line.split() == ["default", "mails", "0", "1", "2", "3", "4", "5"]


def test_migrate_is_for_databases_of_ones_own():
    result = run("migrate")
    assert result.exit_code == 1 and "DATABASE_URLS is not set" in result.stderr


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://me:hidden@127.0.0.1:1/db", "Connection refused"),
        ("postgresql://me:hidden@127.0.0.1:99999/db", "port"),
        ("postgresql://me:hidden %@127.0.0.1:1/db", "no URL"),
    ],
)
def test_a_database_that_cannot_be_migrated_is_told_in_a_line(monkeypatch, url, why):
    monkeypatch.setenv("DATABASE_URLS", url)
    monkeypatch.setenv("REDIS_ADDRS", "redis://127.0.0.1:1")
    monkeypatch.setenv("JWT_SECRET", SECRET)
    result = run("migrate")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.stderr
    assert result.stderr.startswith("Error: shard 0 of DATABASE_URLS: ") and why in result.stderr
    assert "hidden" not in result.stderr


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize("words", [("torture", "--minutes"), ("worker", "jobs", "--max-memory-mb"), ("wal", "replay", ".", "--wait")])
def test_what_is_no_number_is_wrong_usage(words, number):
    result = run(*words, number)
    assert result.exit_code == 2 and f"Invalid value for '{words[-1]}'" in result.stderr


@pytest.mark.parametrize("name", ["a b", "", "a/b", "ü", "x" * 129, "a\n"])
@pytest.mark.parametrize("option", ["--namespace", "--topic", "--exclude", "--name"])
def test_a_worker_is_not_started_under_a_name_that_no_broker_takes(option, name):
    result = run("worker", "jobs", option, name)
    assert result.exit_code == 2 and f"Invalid value for '{option}'" in result.stderr
    assert "1 to 128 of letters, digits, _ . -" in result.stderr


def test_what_a_broker_leaves_for_its_neighbours(tmp_path):
    assert paths.read_endpoint(tmp_path) is None
    paths.write_endpoint(tmp_path, "http://127.0.0.1:8080", "t")
    assert paths.read_endpoint(tmp_path) == paths.Endpoint("http://127.0.0.1:8080", "t")
    assert (tmp_path / paths.ENDPOINT_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in Path(tmp_path).iterdir()] == [paths.ENDPOINT_FILE]
    paths.remove_endpoint(tmp_path)
    paths.remove_endpoint(tmp_path)
    assert paths.read_endpoint(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": "t"}', "null"])
def test_a_damaged_endpoint_is_none(tmp_path, content):
    (tmp_path / paths.ENDPOINT_FILE).write_text(content)
    assert paths.read_endpoint(tmp_path) is None


def _stand_in(monkeypatch, package: str, name: str, module: ModuleType) -> None:
    """Put `module` in the place of package.name, whether the real one was imported or not."""
    monkeypatch.setitem(sys.modules, f"{package}.{name}", module)
    monkeypatch.setattr(sys.modules[package] if package in sys.modules else __import__(package, fromlist=["_"]), name, module, raising=False)


def test_schedules_are_listed(calls):
    head, beat, nightly = run("schedules", "list").stdout.splitlines()
    assert head.split() == ["name", "topic", "when", "catch_up", "state", "next", "last"]
    assert beat.split() == ["beat", "mails", "every", "30", "s", "skip", "paused", "2026-01-02T03:04:05Z"]
    assert nightly.split() == ["nightly", "mails", "0", "4", "*", "*", "*", "UTC", "one", "active", "2026-01-02T03:04:05Z"]


def test_schedules_are_paused_resumed_run_and_deleted(calls):
    assert run("schedules", "pause", "a", "b", "--namespace", "n").stdout == "a paused\nb paused\n"
    assert run("schedules", "resume", "a").stdout == "a next 2026-01-02T03:04:05Z\n"
    assert run("schedules", "run", "a").stdout == f"{2**60}\n"
    assert run("schedules", "delete", "beat", "x").stdout == "beat deleted\nx gone\n"
    assert [call for call in calls if call[0] != "open"] == [("pause", "a", "n"), ("pause", "b", "n"), ("resume", "a", "default")]


STEERS = "\x1b]0;owned\x07\x9b2J\r\u202eback\u2028\udcff"
ESCAPED = r"\x1b]0;owned\x07\x9b2J\r\u202eback\u2028\udcff"


def nasty_worker() -> wire.Worker:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    run = wire.Running(id=7, namespace="default", topic="mails", task=STEERS, attempt=1, seconds=2.5, note=STEERS)
    return wire.Worker(
        name="one", host="h", pid=1, version=STEERS, topics=["default/mails"], tasks=[STEERS], slots=2, busy=1,
        started_at=at, state="running", running=[run],
    )  # fmt: skip


@pytest.mark.parametrize("words", [("workers",), ("workers", "--jobs"), ("dlq", "list", "mails"), ("schedules", "list")])
def test_what_others_wrote_cannot_steer_a_terminal(calls, monkeypatch, words):
    changed = msgspec.structs.replace
    dead, schedules = FakeClient().dead_letters("t", namespace="n", limit=1, after=0), FakeClient().schedules()
    monkeypatch.setattr(FakeClient, "workers", lambda self, namespace: [nasty_worker()], raising=False)
    monkeypatch.setattr(FakeClient, "dead_letters", lambda *_, **__: [changed(dead[0], error=f"x{STEERS}")])
    monkeypatch.setattr(FakeClient, "schedules", lambda *_: [changed(schedules[1], name=STEERS, cron=STEERS)])
    result = run(*words)
    assert result.exit_code == 0, result.exception
    head, line = result.stdout.splitlines()
    shown = r"x\x1b]0;owned\x07\x9b2J" if words[0] == "dlq" else ESCAPED  # of an error the first line
    assert shown in line and all(char.isprintable() for char in head + line)
    assert line.index(shown) == head.index({"dlq": "error", "schedules": "name"}.get(words[0], "task" if len(words) > 1 else "version"))


def test_an_error_cannot_steer_a_terminal(calls, monkeypatch):
    def refuse(*_, **__):
        raise BufferFull(f"no room{STEERS}\nhere")

    monkeypatch.setattr(FakeClient, "enqueue", refuse)
    result = run("enqueue", "mails", "1")
    assert (result.exit_code, result.stderr) == (1, f"Error: no room{ESCAPED}\nhere\n")
