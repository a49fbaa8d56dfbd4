"""Every command of the documentation, run against a real broker: what it answers has the shape the page shows."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.processes.stores import Stores
from tests.waiting import wait_until

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOTE = re.compile(r"\s+# .*$")
AN_ID, A_RECEIPT, A_DEAD_ID = "123456789012345678", "7-2a", "9"
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")


@dataclass
class Command:
    """`says`: the answer the page shows below it, if any."""

    line: str
    says: str = ""


def commands(block: str) -> list[Command]:
    found: list[Command] = []
    for line in block.splitlines():
        if not line:
            continue
        if line.startswith("#"):
            found[-1].says += line[1:]
        elif found and (found[-1].line.count("'") % 2 or found[-1].line.endswith("\\")):
            found[-1].line += "\n" + line
        else:
            found.append(Command(NOTE.sub("", line)))
    return found


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


def test_every_block_has_a_language_this_test_knows() -> None:
    kinds = {(page.name, kind) for page in PAGES for kind, _ in FENCE.findall(page.read_text())}
    assert {kind for _, kind in kinds} <= {"", "bash", "python", "json", "hex", "mermaid"}, kinds
    assert {page for page, kind in kinds if kind == "bash"} == {
        "README.md",
        "benchmarks.md",
        "http-api.md",
        "operations.md",
        "reliability.md",
        "worker.md",
        "integrations.md",
    }, "who runs the others?"


@pytest.fixture
def environment(broker: Broker) -> dict[str, str]:
    return Broker.environment({
        "MQUEUE_DATA_DIR": str(broker.data_dir), "TOKEN": broker.token, "MQ": broker.url, "AUTH": f"Authorization: Bearer {broker.token}",
    })  # fmt: skip


def sh(line: str, environment: dict[str, str], broker: Broker) -> str:
    """What the shell prints; curl fails where the answer is not 200."""
    line = line.replace("http://127.0.0.1:8080", broker.url).replace("http://127.0.0.1:2112/metrics", broker.metrics_url)
    line = line.replace(".venv/bin/", f"{Path(sys.executable).parent}{os.sep}")
    script = f'set -e\ncurl() {{ command curl -sS --fail-with-body "$@"; }}\n{line}\n'
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# -- README ------------------------------------------------------------------------------------------------------------


def test_make_knows_every_target_of_the_readme() -> None:
    """`make demo` and `make test` themselves run elsewhere; here only that each is there."""
    lines = [c.line for block in blocks(ROOT / "README.md", "bash") for c in commands(block) if c.line.startswith("make ")]
    assert len(lines) >= 7
    for line in lines:
        done = subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_the_readmes_worker_runs_the_readmes_jobs(broker: Broker, environment: dict[str, str], tmp_path: Path) -> None:
    [block] = [b for b in blocks(ROOT / "README.md", "bash") if "mqueue worker" in b]
    worker, jobs = [c.line for c in commands(block)]
    out = tmp_path / "worker.out"
    with out.open("wb") as file:
        command = worker.replace(".venv/bin/", f"{Path(sys.executable).parent}{os.sep}").split()
        process = subprocess.Popen(command, cwd=ROOT, env={**environment, "PYTHONUNBUFFERED": "1"}, stdout=file, stderr=subprocess.DEVNULL)
    try:
        assert "queued 7 jobs" in sh(jobs, environment, broker)
        wait_until(lambda: out.read_text().count("sent ") == 6, "the worker sends them", 60)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0


def test_the_readmes_python_runs(broker: Broker, environment: dict[str, str], tmp_path: Path) -> None:
    [block] = blocks(ROOT / "README.md", "python")
    file = tmp_path / "app.py"
    file.write_text(block)
    before = broker.metric("mqueue_enqueue_total")
    subprocess.run([sys.executable, str(file)], cwd=ROOT, env=environment, check=True, timeout=30)
    assert broker.metric("mqueue_enqueue_total") - before == 2


def test_the_readmes_curl_calls(broker: Broker, environment: dict[str, str]) -> None:
    [block] = [b for b in blocks(ROOT / "README.md", "bash") if "curl" in b]
    [got] = json.loads(sh(block, environment, broker).splitlines()[-1].partition("]")[2])
    assert (got["topic"], got["payload"]) == ("leads", "eyJuYW1lIjoiSm9obiBEb2UifQ==")


def test_the_readmes_second_broker(broker: Broker, environment: dict[str, str]) -> None:
    [block] = [b for b in blocks(ROOT / "README.md", "bash") if "--join" in b]
    [command] = commands(block)
    words = command.line.replace(".venv/bin/", f"{Path(sys.executable).parent}{os.sep}").split("#")[0].split()
    process = subprocess.Popen(
        [*words[:-1], str(broker.data_dir)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"mqueue broker ready url=")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
        process.stdout.close()


def test_the_torture_of_the_reliability_page(broker: Broker, environment: dict[str, str]) -> None:
    """Its short form, with one fault; `test_torture.py` has more of them."""
    [block] = [b for b in blocks(ROOT / "docs" / "reliability.md", "bash") if "mqueue torture" in b]
    [command] = commands(block)
    assert "--minutes 10 " in command.line
    said = sh(command.line.replace("--minutes 10 ", "--minutes 0.1 --faults worker-kill "), environment, broker)
    assert "| lost | 0 |" in said


def test_the_simulation_of_the_reliability_page(broker: Broker, environment: dict[str, str]) -> None:
    """One seed each; the mutations take minutes: `tests/simulation/test_simulation.py` has some of them."""
    [block] = [b for b in blocks(ROOT / "docs" / "reliability.md", "bash") if "tests.simulation" in b]
    many, one, mutations, against = [command.line for command in commands(block)]
    assert "failed: none" in sh(many.replace("--seeds 1000", "--seeds 1"), environment, broker)
    assert "failed: none" in sh(one, environment, broker)
    assert "--mutations" in sh(mutations.replace("--mutations", "--help"), environment, broker)
    if (ROOT / ".git").exists():
        said = sh(against.replace("--seeds 50", "--seeds 1").replace("HEAD~1", "HEAD"), environment, broker)
        assert "calls compared" in said and "failed: none" in said


def test_the_campaigns_of_the_reliability_page(broker: Broker, environment: dict[str, str]) -> None:
    """They take minutes: here each is only asked whether it takes the options that it is shown with."""
    [block] = [b for b in blocks(ROOT / "docs" / "reliability.md", "bash") if "tests.campaigns" in b]
    lines = [command.line for command in commands(block)]
    assert len(lines) >= 5
    for line in lines:
        [name] = re.findall(r"-m tests\.campaigns\.(\w+)", line)
        assert (ROOT / "tests" / "end_to_end" / "campaigns" / f"test_{name}.py").exists()
        said = sh(f"{line.partition(' --')[0]} --help", environment, broker)
        assert all(option in said for option in re.findall(r"--\w+", line)), line


def test_the_benchmarks_page(broker: Broker, environment: dict[str, str]) -> None:
    """Its `mqueue bench` in a short form; of the comparison and the rest only whether they take their options."""
    lines = [command.line for block in blocks(ROOT / "docs" / "benchmarks.md", "bash") for command in commands(block)]
    own = [line for line in lines if "mqueue bench" in line]
    assert len(own) == 2
    text, told = [sh(re.sub(r" --seconds \d+|$", " --seconds 0.2", line, count=1), environment, broker) for line in own]
    assert "enqueue, one call at a time" in text
    assert json.loads(told)["topic"] == "speed"
    for line in lines:
        if "-m benchmarks" in line:
            said = sh(f"{line.partition(' --')[0]} --help", environment, broker)
            assert all(option in said for option in re.findall(r"--\w+", line)), line
    assert subprocess.run(["make", "--dry-run", "bench"], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_the_operations_page_from_the_first_command_to_the_last(data_dir: Path, tmp_path: Path) -> None:
    """Two brokers: one's log is damaged, and mended; then its host dies."""
    stores = Stores(data_dir)
    try:
        with Broker(env=stores.environment()) as broker, Broker(env=stores.environment()) as dead:
            wal = tmp_path / "wal"
            environment = Broker.environment(stores.environment())
            inspect, verify, dry, replay, retire, ask, free, quarantine, mend = [
                c.line.replace("/var/lib/mqueue/wal", str(wal)).replace("/mnt/dead/wal", str(wal))
                for block in blocks(ROOT / "docs" / "operations.md", "bash")
                for c in commands(block)
            ]
            Http(dead.url, dead.token).put(*[b"x"] * 20)
            wal.symlink_to(dead.data_dir / "wal")
            assert "in use       yes" in sh(inspect, environment, dead)
            assert "shard 0: ok" in sh(verify, environment, dead)
            Http(dead.url, dead.token).put(*[b"x"] * 20)
            assert dead.stop() == 0
            segment = wal / "shard-0" / "0000000000000001.wal"
            data = bytearray(segment.read_bytes())
            data[100] ^= 1
            segment.write_bytes(data)
            with pytest.raises(AssertionError, match="between sequence 0 and"):
                sh(verify, environment, dead)
            with pytest.raises(AssertionError, match="nothing was changed"):
                sh(quarantine, environment, dead)
            assert "shard-0.quarantine-1" in sh(mend, environment, dead)
            assert "shard 0: ok" in sh(verify, environment, dead)
            dead.start()
            assert dead.stop() == 0
            assert "shard 0: to replay: 0 messages" in sh(dry, environment, dead)
            assert "shard 0: replayed: 0 messages" in sh(replay, environment, dead)
            assert "is free" in sh(retire, environment, dead)
            with pytest.raises(AssertionError, match="17 is nobody's"):
                sh(ask, environment, dead)
            with pytest.raises(AssertionError, match="17 is nobody's"):
                sh(free, environment, dead)
            assert len(Http(broker.url, broker.token).get(limit=100)) == 40
    finally:
        stores.close()


# -- tasks and workers -------------------------------------------------------------------------------------------------


def test_the_worker_pages_shop_runs(broker: Broker, environment: dict[str, str], tmp_path: Path) -> None:
    page = ROOT / "docs" / "worker.md"
    for block in blocks(page, "python"):
        name, _, code = block.partition("\n")
        with (tmp_path / name.removeprefix("# ")).open("a") as file:
            file.write(code + "\n")
    periodic, block = blocks(page, "bash")
    worker, jobs, workers, dead = [c.line for c in commands(block)]
    [says] = blocks(page, "")
    out = tmp_path / "worker.out"
    inside = {**environment, "PYTHONUNBUFFERED": "1"}
    with out.open("wb") as file:
        command = worker.replace(".venv/bin/", f"{Path(sys.executable).parent}{os.sep}").split()
        process = subprocess.Popen(command, cwd=tmp_path, env=inside, stdout=file, stderr=subprocess.DEVNULL)
    try:
        sh(f"cd {tmp_path}\n{jobs}", environment, broker)
        wait_until(lambda: _same_lines(out.read_text(), says), "the worker prints what the page shows", 90)
        assert [line.split()[1:3] for line in sh(workers, environment, broker).splitlines()[1:]] == [["running", version("mqueue")]]
        wait_until(lambda: len(sh(dead, environment, broker).splitlines()) == 4, "three dead letters below their head", 30)
        wait_until(
            lambda: "shop.sweep" in sh(".venv/bin/mqueue schedules list", environment, broker), "the worker has declared what is periodic", 10
        )
        told = [sh(c.line, environment, broker) for c in commands(periodic)]
        assert [line.split()[0] for line in told[0].splitlines()] == ["name", "shop.report", "shop.sweep"]
        assert told[1] == "shop.sweep paused\n"
        wait_until(lambda: "reported yesterday to ada" in out.read_text().splitlines(), "what was run by hand", 10)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0


def _same_lines(text: str, says: str) -> bool:
    """In any order. Threads print at the same time: a line may begin before another has its end."""
    return len(text) == len(says) and all(line in text for line in says.splitlines())


# -- the HTTP API ------------------------------------------------------------------------------------------------------


def test_every_call_of_the_api_page_answers_as_it_shows(broker: Broker, environment: dict[str, str]) -> None:
    story = [c for block in blocks(ROOT / "docs" / "http-api.md", "bash") for c in commands(block) if "curl" in c.line]
    assert len(story) >= 13
    http = Http(broker.url, broker.token, topic="leads")
    for command in story:
        line = command.line.replace("wait=20", "wait=0.2").replace('"wait": 20', '"wait": 0.2')
        line = _with_a_real_message(line, command.says, http)
        answer = sh(line, environment, broker)
        if command.says:
            _alike(json.loads(answer), json.loads(command.says), line)


def _with_a_real_message(line: str, says: str, http: Http) -> str:
    """The page's ids replaced by those of a message in the state that its answer speaks of; one that is gone may stay
    made up.
    """
    while old := http.get(limit=1000):
        for message in old:
            http.ack(message)
    if "/dlq" in line:
        [dead] = http.put(b"x", max_retries=0)
        http.nack(http.get()[0], error="Processing failed")
        return line.replace(f'"id": {A_DEAD_ID},', f'"id": {dead},')
    if "/workers" in line:
        [worker] = json.loads(says)
        del worker["seen_at"]
        http.good(http.call("POST", "/workers", worker))
        wait_until(lambda: http.good(http.call("GET", "/workers")), "it is heard of")
        return line
    if "/result" in line:
        [id] = http.put(b"x")
        http.ack(http.get()[0], result="eA==")
        return line.replace(AN_ID, str(id))
    if "gone" in says or "/enqueue" in line:
        return line
    [id] = http.put(b"x")
    if "receipt" in line and AN_ID in line:
        [leased] = http.get()
        line = line.replace(A_RECEIPT, leased["receipt"])
    return line.replace(AN_ID, str(id))


def _alike(real: Any, shown: Any, where: str) -> None:
    """The same shape; the same words where they are verdicts or states."""
    if isinstance(shown, dict):
        assert real.keys() == shown.keys() or shown == {}, (where, real, shown)
        for name, value in shown.items():
            if name in {"status", "state", "namespace", "topic", "error"}:
                assert real[name] == value, (where, real, shown)
            elif name != "counters":
                _alike(real[name], value, where)
    elif isinstance(shown, list):
        assert bool(real) == bool(shown), (where, real, shown)
        for one in real:
            if isinstance(one, dict) and one.get("topic", "leads") != "leads":
                continue  # another test's
            _alike(one, shown[0], where)
    else:
        assert type(real) is type(shown), (where, real, shown)
