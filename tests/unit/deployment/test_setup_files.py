"""The set-up files, as far as they can be checked without a Docker engine."""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from contextlib import suppress

import pytest
import yaml
from dotenv import dotenv_values

from mqueue.broker.config import NAMES, load, reference
from mqueue.worker.program.program import probing
from mqueue.worker.status import Status
from tests import ROOT

COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# As from a shell, also when these tests run under make.
SHELL_ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "JWT_SECRET")
OUTSIDE = {"MQUEUE_HOST", "MQUEUE_PORT", "MQUEUE_METRICS_PORT"}  # where the host listens: in the container they stay
VOLUME = "MQUEUE_DATA_DIR"
CHANGED = {
    "MQUEUE_HOST": "0.0.0.0",
    "MQUEUE_PORT": "81",
    "MQUEUE_METRICS_PORT": "82",
    "MQUEUE_SHARDS": "3",
    "MQUEUE_ALLOW_COLD": "True",
    "MQUEUE_WAL_MOVED": "True",
    "MQUEUE_POSTGRES_NAMESPACES": "pay",
    "MQUEUE_READY_MAX": "11",
    "MQUEUE_BUFFER_MAX_MB": "12",
    "MQUEUE_REDIS_MAX_MB": "113",
    "MQUEUE_DELAYED_MAX": "14",
    "MQUEUE_FLUSH_AGE_MS": "15",
    "MQUEUE_LEASE_S": "16.0",
    "MQUEUE_MAX_RETRIES": "17",
    "MQUEUE_IDEMPOTENCY_S": "18",
    "MQUEUE_RESULT_MAX_KB": "19",
    "MQUEUE_TIME_HORIZON_S": "20",
    "MQUEUE_TOPIC_IDLE_S": "21",
    "MQUEUE_LOG_LEVEL": "debug",
    "MQUEUE_LOG_FORMAT": "console",
}


def test_compose_has_two_shards_a_cache_a_broker_and_a_worker():
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {
        "postgres-0",
        "postgres-1",
        "valkey",
        "broker",
        "worker",
    }
    urls = SERVICES["broker"]["environment"]["DATABASE_URLS"]
    assert "@postgres-0:5432/" in urls and "@postgres-1:5432/" in urls
    assert {SERVICES[name]["image"] for name in ("postgres-0", "postgres-1")} == {"postgres:18"}
    assert [filled(port, {}) for port in SERVICES["broker"]["ports"]] == ["127.0.0.1:8080:8080", "127.0.0.1:2112:2112"]


def filled(text, environ):
    """As compose does it: `${NAME}`, `${NAME:-default}`, `${NAME:+instead}`, `${NAME:?error}`."""

    def value(found):
        name, operator, word = found.groups()
        there = environ.get(name, "")
        return (word if there else "") if operator == ":+" else there or (filled(word or "", environ) if operator == ":-" else "")

    once = re.sub(r"\$\{([A-Z_]+)(?:(:[-+?])((?:[^{}]|\$\{[^{}]*\})*))?\}", value, text)
    return once.replace("$$", "$")


def test_compose_waits_for_health_instead_of_time():
    assert SERVICES["broker"]["depends_on"] == {name: {"condition": "service_healthy"} for name in ("postgres-0", "postgres-1", "valkey")}
    assert SERVICES["worker"]["depends_on"] == {"broker": {"condition": "service_healthy"}}
    for name, service in SERVICES.items():  # `up --wait` fails where one has none
        own = service.get("healthcheck", {}).get("test")
        assert own or (service["image"] == "mqueue" and service.get("command") is None), name
    assert "HEALTHCHECK" in DOCKERFILE and "/health" in DOCKERFILE  # the broker's own
    assert "sleep" not in COMPOSE_TEXT


@pytest.mark.parametrize("ready", [True, False])
def test_the_workers_healthcheck_asks_its_probe(ready):
    health = SERVICES["worker"]["healthcheck"]["test"]
    assert health[:3] == ["CMD", "python", "-c"]
    [command] = [line for line in SERVICES["worker"]["command"][-1].splitlines() if "mqueue worker" in line]
    assert command.endswith("--probe-host 127.0.0.1 --probe-port 2113")
    with probing("127.0.0.1", 0, lambda: [Status(None if ready else "no answer from the broker", {}, 0, 1)]) as probe:
        code = health[3].replace(":2113/", f":{probe.port}/")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is ready, done.stderr


def test_the_printed_certificate_is_that_of_all_who_are_asked(tmp_path):
    """Its key is made for its owner alone: the image's user, after the line that follows."""
    readme = (ROOT / "contrib" / "README.md").read_text()
    [command] = re.findall(r"^openssl req (?:.*\\\n)*.*$", readme, re.MULTILINE)
    assert "sudo chown 10001 mqueue-certs/key.pem" in readme and "--uid 10001 " in DOCKERFILE
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    (tmp_path / "mqueue-certs").mkdir()
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    cert, key = tmp_path / "mqueue-certs/cert.pem", tmp_path / "mqueue-certs/key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    for name in ("localhost", "broker", "127.0.0.1"):
        assert shake_hands(cert, key, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(cert, key, "elsewhere")


def shake_hands(cert, key, name):
    """A server with this certificate, asked by this name by a client that trusts it and no other."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(cert, key)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(up, down, server_side=True)
    client = ssl.create_default_context(cafile=str(cert)).wrap_bio(down, up, server_hostname=name)
    for _ in range(4):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return client.version()


def test_every_setting_of_the_example_reaches_the_broker(tmp_path):
    """Each has another value than its default in .env; the broker's container is given that."""
    assert CHANGED.keys() == {name for name in NAMES if name.startswith("MQUEUE_")} - {VOLUME}
    inside = {name: filled(str(text), CHANGED) for name, text in SERVICES["broker"]["environment"].items()}
    assert not inside.keys() & (OUTSIDE | {VOLUME})
    own = {name: text for name, text in inside.items() if name in CHANGED}
    assert own == {name: text for name, text in CHANGED.items() if name not in OUTSIDE}
    given, default = load({"data_dir": tmp_path}, own, tmp_path / "none"), load({"data_dir": tmp_path}, {}, tmp_path / "none")
    assert all(getattr(given, NAMES[name]) != getattr(default, NAMES[name]) for name in own)
    assert [filled(port, CHANGED) for port in SERVICES["broker"]["ports"]] == ["0.0.0.0:81:8080", "0.0.0.0:82:2112"]


@pytest.mark.parametrize("name", ["valkey", "broker", "broker-2", "worker"])
def test_compose_confines_what_it_runs(name):
    service = SERVICES[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]


def test_compose_bounds_logs_and_memory_and_leaves_no_nameless_volume():
    for name, service in SERVICES.items():
        assert service["mem_limit"] and service["logging"]["options"].keys() == {"max-size", "max-file"}, name
    mounted = {name: [*service.get("volumes", []), *service.get("tmpfs", [])] for name, service in SERVICES.items()}
    for name in ("broker", "broker-2", "worker"):  # what the image declares as a volume
        assert any("/var/lib/mqueue" in mount for mount in mounted[name]), name
    assert {mount.partition(":")[0] for mounts in mounted.values() for mount in mounts if not mount.startswith(("/", "."))} == set(
        COMPOSE["volumes"]
    )


def test_a_second_broker_has_a_log_of_its_own_and_answers_to_the_same_name():
    first, second = SERVICES["broker"], SERVICES["broker-2"]
    assert second["profiles"] == ["two"] and not {"ports", "build"} & second.keys(), "one builds the image for both"
    assert second["networks"]["default"]["aliases"] == ["broker"]
    assert first["environment"] == second["environment"]
    assert first["volumes"][0] != second["volumes"][0]


@pytest.mark.may_skip
def test_compose_takes_the_file():
    version = subprocess.run(["docker", "compose", "version", "--short"], capture_output=True, text=True) if shutil.which("docker") else None
    if version is None or version.returncode:
        pytest.skip("docker compose is missing")
    environ = os.environ | dict.fromkeys(SECRETS, "x" * 48)
    done = subprocess.run(
        ["docker", "compose", "--profile", "two", "config", "--format", "json"], cwd=ROOT, capture_output=True, text=True, env=environ
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == set(SERVICES)


def test_compose_keeps_shards_and_log_but_not_the_cache():
    assert SERVICES["postgres-0"]["volumes"] == ["postgres-0:/var/lib/postgresql"]
    assert SERVICES["postgres-1"]["volumes"] == ["postgres-1:/var/lib/postgresql"]
    assert "broker:/var/lib/mqueue" in SERVICES["broker"]["volumes"]
    assert "volumes" not in SERVICES["valkey"]
    command = " ".join(SERVICES["valkey"]["command"])
    for line in ('save ""', "appendonly no", "maxmemory-policy noeviction", "requirepass $$REDIS_PASSWORD"):
        assert line in command


def test_compose_holds_no_secret_and_asks_for_each():
    for name in SECRETS:
        uses = re.findall(r"\$\{" + name + r"([^}]*)", COMPOSE_TEXT)
        assert uses and all(use.startswith(":?") for use in uses), name
    assert SERVICES["worker"]["environment"]["JWT_SECRET"] == SERVICES["broker"]["environment"]["JWT_SECRET"]


def test_compose_sets_only_what_the_broker_knows():
    assert set(SERVICES["broker"]["environment"]) <= set(NAMES)


def test_image_runs_as_an_ordinary_user_on_its_own_folder():
    last = DOCKERFILE.rsplit("FROM", 1)[1]
    assert re.search(r"^USER mqueue$", last, re.MULTILINE)
    assert "MQUEUE_DATA_DIR=/var/lib/mqueue" in last and "MQUEUE_HOST=0.0.0.0" in last
    assert "[broker]" in last


def test_env_example_lists_every_option_with_its_default(tmp_path):
    text = (ROOT / ".env.example").read_text()
    listed = set(re.findall(r"^(?:# )?([A-Z_]+)=", text, re.MULTILINE))
    assert listed == set(NAMES) | {"POSTGRES_PASSWORD"}
    filled = tmp_path / ".env"
    filled.write_text(re.sub(r"^# (MQUEUE_[A-Z_]+=)", r"\1", text, flags=re.MULTILINE))
    shown = dotenv_values(filled)
    for option in reference():
        assert option.field == "data_dir" or shown[option.name] == option.default, option.name
    load({"data_dir": tmp_path}, environ={}, dotenv=ROOT / ".env.example")


@pytest.mark.parametrize("target", ["demo", "run", "test", "check", "integration-test", "bench", "build"])
def test_make_knows_its_targets(target):
    """`make --dry-run` prints what it would do, and does nothing."""
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, env=SHELL_ENVIRON)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_an_old_python_is_refused_in_one_line(tmp_path):
    old = tmp_path / "python2"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", f"VENV={tmp_path}/venv", "run"], cwd=ROOT, capture_output=True, text=True, env=SHELL_ENVIRON
    )
    assert done.returncode == 2
    assert done.stdout == f"mqueue needs Python 3.11 or newer and '{old}' is not: name another with: make PYTHON=/path/to/python3\n"


def test_integration_test_without_an_engine_says_so_and_passes(tmp_path):
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / ".installed").touch()  # newer than pyproject.toml: nothing to install
    environ = SHELL_ENVIRON | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["make", f"VENV={venv}", "integration-test"], cwd=ROOT, capture_output=True, text=True, env=environ)
    assert done.returncode == 0 and "no Docker engine answers" in done.stdout


def test_ci_runs_make_test():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make test")
    assert subprocess.run(["bash", "-n", script]).returncode == 0
