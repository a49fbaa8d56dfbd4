"""The files of contrib/: what they say is what mqueue, and the tools they are for, take."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from dotenv import dotenv_values

from mqueue.broker import app as broker_app
from mqueue.broker.config import NAMES, OTHERS, ConfigError, Settings, load
from mqueue.broker.embedded import postgres, valkey
from mqueue.broker.http import app as api
from mqueue.broker.wal.errors import WalBroken, WalCorrupt, WalFull, WalLocked
from mqueue.cli.main import DURATION, main
from mqueue.worker import stopping
from mqueue.worker.program import fleet, program
from tests import ROOT

CONTRIB = ROOT / "contrib"
README = (CONTRIB / "README.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PROBE_PAGES = {"/live", "/ready"}
BROKER_PAGES = {"/health", "/ready"}


def parsed(words: list[str]) -> dict[str, Any]:
    """What the command line takes of a command; a usage error fails the test."""
    program, name, *rest = words
    assert Path(program).name == "mqueue"
    with main.commands[name].make_context(name, rest) as context:
        return context.params


def seconds(duration: str) -> float:
    return DURATION.convert(duration, None, None)


def takes_to_stop(grace: float, *, processes: bool = False) -> float:
    """A worker, at the longest."""
    return grace + stopping.CANCEL_S + stopping.HURRY_S + (fleet.KILL_S if processes else 0)


# ── the settings ──


def test_the_settings_are_those_that_the_command_prints() -> None:
    said = CliRunner().invoke(main, ["settings"])
    assert (said.exit_code, said.output) == (0, (CONTRIB / "mqueue.env.example").read_text()), "mqueue settings > contrib/mqueue.env.example"


def test_the_settings_are_all_there_and_the_defaults(tmp_path: Path) -> None:
    text = (CONTRIB / "mqueue.env.example").read_text()
    given = dotenv_values(stream=StringIO(re.sub(r"^#(?=[A-Z_]+=)", "", text, flags=re.MULTILINE)))
    assert given.keys() == NAMES.keys()
    assert load(environ={name: value or "" for name, value in given.items()}, dotenv=tmp_path / "none") == Settings()
    assert not dotenv_values(stream=StringIO(text)), "it changes nothing before somebody edits it"


# ── systemd ──


class Unit:
    """Of a unit file: the values of each option, in order."""

    def __init__(self, name: str) -> None:
        self.path = CONTRIB / "systemd" / name
        self.sections: dict[str, dict[str, list[str]]] = {}
        for line in self.path.read_text().splitlines():
            if line.startswith("["):
                section = self.sections.setdefault(line.strip("[]"), {})
            elif line and not line.startswith("#"):
                option, _, value = line.partition("=")
                section.setdefault(option, []).append(value)

    def __getitem__(self, option: str) -> str:
        [value] = self.sections["Service"][option]
        return value


BROKER, WORKER = Unit("mqueue-broker.service"), Unit("mqueue-worker@.service")
WORKER_ENV = dotenv_values(CONTRIB / "systemd" / "mqueue-worker.env.example")


def worker_command() -> list[str]:
    """As systemd expands it: an unbraced variable of its own becomes words."""
    return [part for word in WORKER["ExecStart"].split() for part in (shlex.split(WORKER_ENV[word[1:]] or "") if word[0] == "$" else [word])]


def test_the_units_start_what_there_is() -> None:
    assert parsed(BROKER["ExecStart"].split()) == dict.fromkeys(("host", "port", "metrics_port", "data_dir", "shards", "allow_cold", "join"))
    options = parsed(worker_command())
    assert options["modules"] == ("examples.emails",)
    assert (options["grace"], options["processes"], options["probe_host"]) == (60, 2, "127.0.0.1")
    assert {name for name in WORKER_ENV if name.startswith("MQUEUE_")} <= OTHERS
    assert not WORKER_ENV["MQUEUE_TOKEN"]


def test_the_brokers_log_is_in_its_state_directory() -> None:
    name, _, value = BROKER["Environment"].partition("=")
    settings = load(environ={name: value.replace("%S", "/var/lib")}, dotenv=ROOT / "none")
    assert settings.effective_wal_dir.is_relative_to(f"/var/lib/{BROKER['StateDirectory']}")
    assert BROKER["StateDirectoryMode"] == "0700", "the broker refuses one that others may write to"


def test_the_handbook_says_how_long_a_worker_takes_beyond_its_grace() -> None:
    said = " ".join((ROOT / "docs" / "worker.md").read_text().split())
    assert f"The exit may take {takes_to_stop(0):g} s more than the grace period" in said
    assert f"{stopping.CANCEL_S:g} s for what is cancelled to clean up, {stopping.HURRY_S:g} s for the last outcomes" in said


def test_systemd_waits_for_as_long_as_a_stop_takes() -> None:
    stores = sum(allowed for stop in (postgres.STOP, valkey.STOP) for _, allowed in stop)
    assert float(BROKER["TimeoutStopSec"]) >= broker_app.STOP_MAX_S + stores
    assert float(WORKER["TimeoutStopSec"]) >= takes_to_stop(parsed(worker_command())["grace"], processes=True)
    assert BROKER["KillMode"] == WORKER["KillMode"] == "mixed", "else the stores, and the jobs' processes, end at the same moment"


def test_systemd_hears_from_the_broker() -> None:
    assert (BROKER["Type"], BROKER["NotifyAccess"]) == ("notify", "main")
    assert BROKER["TimeoutStartSec"] == "infinity", "a migration takes as long as it takes"
    assert float(BROKER["WatchdogSec"]) >= 60, "a turn of the loop takes some ms, but a disk may hold it up"


def test_what_another_start_cannot_mend_is_not_started_again() -> None:
    usage_error = 2
    for unit in (BROKER, WORKER):
        assert unit["Restart"] == "always"
        assert unit.sections["Unit"]["StartLimitIntervalSec"] == ["0"], "or it gives up after five tries"
    told = {int(code) for code in BROKER["RestartPreventExitStatus"].split()}
    assert told == {usage_error, ConfigError.exit_code, WalCorrupt.exit_code}
    assert not told & {WalLocked.exit_code, WalBroken.exit_code, WalFull.exit_code, 1}
    assert {int(code) for code in WORKER["RestartPreventExitStatus"].split()} == {usage_error, ConfigError.exit_code}


@pytest.fixture
def units(tmp_path: Path) -> Iterator[list[Path]]:
    """The units for a program that is there, the worker's with an instance."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    paths = []
    for unit, name in ((BROKER, "mqueue-broker.service"), (WORKER, "mqueue-worker@emails.service")):
        path = tmp_path / name
        path.write_text(unit.path.read_text().replace("/opt/mqueue/bin/mqueue", str(Path(sys.executable).parent / "mqueue")))
        paths.append(path)
    (tmp_path / "mqueue-worker@.service").write_text(paths[1].read_text())
    yield paths


@pytest.mark.may_skip
def test_systemd_takes_the_units(units: list[Path]) -> None:
    for path in units:
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.may_skip
def test_systemd_finds_them_tight(units: list[Path]) -> None:
    for path in units:
        command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "unrecognized option" in done.stderr:
            pytest.skip("systemd is older than 250")
        assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()


# ── Kubernetes ──

MANIFESTS = {
    (each["kind"], each["metadata"]["name"]): each
    for name in ("namespace.yaml", "broker.yaml", "worker.yaml")
    for each in yaml.safe_load_all((CONTRIB / "kubernetes" / name).read_text())
}
BROKER_SET = MANIFESTS["StatefulSet", "mqueue-broker"]["spec"]
BROKER_POD = BROKER_SET["template"]["spec"]
WORKERS = MANIFESTS["Deployment", "mqueue-worker"]["spec"]
WORKER_POD = WORKERS["template"]["spec"]
PODS = pytest.mark.parametrize("pod", [BROKER_POD, WORKER_POD], ids=["broker", "worker"])


def environment(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in pod["containers"][0]["env"]}


def test_the_pods_run_what_there_is() -> None:
    assert parsed(BROKER_POD["containers"][0]["args"])["join"] is None
    options = parsed(WORKER_POD["containers"][0]["args"])
    assert (options["grace"], options["probe_port"], options["probe_host"]) == (60, 2113, "0.0.0.0")
    assert environment(BROKER_POD).keys() <= NAMES.keys()
    assert environment(WORKER_POD).keys() <= OTHERS


@PODS
def test_the_pods_are_the_images(pod: dict[str, Any]) -> None:
    [container] = pod["containers"]
    assert container["image"] == COMPOSE["broker"]["image"] == COMPOSE["worker"]["image"]
    assert f"--uid {pod['securityContext']['runAsUser']} " in DOCKERFILE
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert "/tmp" in {each["mountPath"] for each in container["volumeMounts"]}


def test_the_image_has_the_tag_that_the_page_builds() -> None:
    [image] = yaml.safe_load((CONTRIB / "kubernetes/kustomization.yaml").read_text())["images"]
    assert image["name"] == COMPOSE["broker"]["image"]
    assert f"--build-arg VERSION={image['newTag']} --tag {image['name']}:{image['newTag']} ." in README
    assert "ARG VERSION" in DOCKERFILE


def test_each_broker_gets_its_own_log_back() -> None:
    [volume] = BROKER_SET["volumeClaimTemplates"]
    [mount] = [each for each in BROKER_POD["containers"][0]["volumeMounts"] if each["name"] == volume["metadata"]["name"]]
    named = {name: each["value"] for name, each in environment(BROKER_POD).items() if "value" in each}
    settings = load(environ=named, dotenv=ROOT / "none")
    assert settings.data_dir.parent == Path(mount["mountPath"]), "the volume itself is writable for its group: the broker refuses it"
    assert settings.effective_wal_dir.is_relative_to(mount["mountPath"])
    assert BROKER_SET["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert BROKER_POD["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_kubernetes_waits_for_as_long_as_a_stop_takes() -> None:
    assert BROKER_POD["terminationGracePeriodSeconds"] >= broker_app.STOP_MAX_S + 5
    assert WORKER_POD["terminationGracePeriodSeconds"] >= takes_to_stop(parsed(WORKER_POD["containers"][0]["args"])["grace"]) + 5


def test_docker_waits_for_as_long_as_a_stop_takes() -> None:
    grace = next(each for each in main.commands["worker"].params if each.name == "grace").default
    assert seconds(COMPOSE["broker"]["stop_grace_period"]) >= broker_app.STOP_MAX_S + 5
    assert seconds(COMPOSE["worker"]["stop_grace_period"]) >= takes_to_stop(seconds(str(grace))) + 5


def test_probes_ask_for_pages_that_there_are() -> None:
    for pod, pages in ((BROKER_POD, BROKER_PAGES), (WORKER_POD, PROBE_PAGES)):
        [container] = pod["containers"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["path"] in pages
            assert asked["port"] in ports
    ports = {each["name"]: each["containerPort"] for each in BROKER_POD["containers"][0]["ports"]}
    assert ports == {"http": Settings().port, "metrics": Settings().metrics_port}
    assert WORKER_POD["containers"][0]["ports"] == [
        {"name": "probe", "containerPort": parsed(WORKER_POD["containers"][0]["args"])["probe_port"]}
    ]
    startup = BROKER_POD["containers"][0]["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > broker_app.SERVING_WAIT_S + postgres.START_S


def test_the_pages_are_served() -> None:
    for module, pages in ((api, BROKER_PAGES), (program, PROBE_PAGES)):
        source = Path(module.__file__).read_text()
        assert all(f'"{page}"' in source for page in pages)


def test_services_and_budgets_find_their_pods() -> None:
    labels = BROKER_SET["template"]["metadata"]["labels"]
    assert BROKER_SET["selector"]["matchLabels"].items() <= labels.items()
    assert WORKERS["selector"]["matchLabels"] == WORKERS["template"]["metadata"]["labels"] != labels
    assert MANIFESTS["PodDisruptionBudget", "mqueue-broker"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert MANIFESTS["PodDisruptionBudget", "mqueue-broker"]["spec"]["maxUnavailable"] == 1
    for name in ("mqueue", BROKER_SET["serviceName"]):
        service = MANIFESTS["Service", name]["spec"]
        assert service["selector"].items() <= labels.items()
        assert {each["targetPort"] for each in service["ports"]} <= {each["name"] for each in BROKER_POD["containers"][0]["ports"]}
    [port] = MANIFESTS["Service", "mqueue"]["spec"]["ports"]
    assert environment(WORKER_POD)["MQUEUE_URL"]["value"] == f"http://mqueue:{port['port']}"


def test_secrets_come_from_where_the_readme_puts_them() -> None:
    asked: dict[str, set[str]] = {}
    for pod in (BROKER_POD, WORKER_POD):
        for name, each in environment(pod).items():
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                asked.setdefault(reference["name"], set()).add(reference["key"])
            else:
                assert not re.search("SECRET|TOKEN|PASSWORD|DATABASE", name)
    assert asked == {"mqueue-broker": {"DATABASE_URLS", "REDIS_ADDRS", "REDIS_PASSWORD", "JWT_SECRET"}, "mqueue-worker": {"token"}}
    assert "create secret generic mqueue-broker --from-env-file=.env" in README
    assert "create secret generic mqueue-worker --from-file=token" in README
    for command in re.findall(r"mqueue (token .+?)(?: >|\n|`)", README):
        assert parsed(["mqueue", *command.split()])["scopes"] == ("read", "write")


@pytest.mark.may_skip
def test_kustomize_builds_all_of_it() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is missing")
    done = subprocess.run(["kubectl", "kustomize", str(CONTRIB / "kubernetes")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert {(each["kind"], each["metadata"]["name"]) for each in built} == set(MANIFESTS)
    assert all(each["metadata"].get("namespace", "mqueue") == "mqueue" for each in built)


# ── what is named anywhere ──


def test_every_setting_that_is_named_is_one() -> None:
    for path in CONTRIB.rglob("*"):
        if path.is_file():
            named = set(re.findall(r"\bMQUEUE_[A-Z_]+\b", path.read_text()))
            assert named <= set(NAMES) | OTHERS, path


def test_every_file_is_in_the_readme() -> None:
    for path in CONTRIB.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert path.relative_to(CONTRIB).as_posix() in README or f"{path.parent.name}/`" in README, path
    assert "../contrib/README.md" in (ROOT / "docs/operations.md").read_text()
