"""The set-up files, as far as they can be checked without a Docker engine."""

import os
import re
import subprocess

import pytest
import yaml
from dotenv import dotenv_values

from mqueue.broker.config import NAMES, load, reference
from tests import ROOT

COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# As from a shell, also when these tests run under make.
SHELL_ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "JWT_SECRET")


def test_compose_has_two_shards_a_cache_a_broker_and_a_worker():
    assert set(SERVICES) == {"postgres-0", "postgres-1", "valkey", "broker", "worker"}
    urls = SERVICES["broker"]["environment"]["DATABASE_URLS"]
    assert "@postgres-0:5432/" in urls and "@postgres-1:5432/" in urls
    assert {SERVICES[name]["image"] for name in ("postgres-0", "postgres-1")} == {"postgres:18"}
    assert set(SERVICES["broker"]["ports"]) == {"8080:8080", "2112:2112"}


def test_compose_waits_for_health_instead_of_time():
    assert SERVICES["broker"]["depends_on"] == {name: {"condition": "service_healthy"} for name in ("postgres-0", "postgres-1", "valkey")}
    assert SERVICES["worker"]["depends_on"] == {"broker": {"condition": "service_healthy"}}
    for name in ("postgres-0", "postgres-1", "valkey"):
        assert SERVICES[name]["healthcheck"]["test"], name
    assert "HEALTHCHECK" in DOCKERFILE and "/health" in DOCKERFILE  # the broker's own
    assert "sleep" not in COMPOSE_TEXT


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
