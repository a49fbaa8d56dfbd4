"""Settings: where they come from, what is refused, in what words."""

import base64
import hashlib
from pathlib import Path

import pytest

from mqueue.broker import config
from mqueue.broker.config import ConfigError, Settings, load, reference

SECRET = "s" * 32
STORES = {"DATABASE_URLS": "postgresql://u:p@db/a", "REDIS_ADDRS": "cache:6379", "JWT_SECRET": SECRET}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory with no `.env`, and no setting of the machine that runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MQUEUE_DATA_DIR", raising=False)


def with_env(**environ: str) -> Settings:
    return load(environ=environ)


def refused(flags=None, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags, environ=environ)
    assert caught.value.exit_code == 78
    assert "\n" not in caught.value.detail
    return caught.value.detail


def test_defaults_need_nothing():
    settings = with_env()
    assert (settings.host, settings.port, settings.metrics_port, settings.shards) == ("127.0.0.1", 8080, 2112, 1)
    assert settings.embedded and settings.jwt_secret is None
    assert settings.effective_wal_dir == settings.data_dir / "wal"


def test_flags_before_environment_before_dotenv_before_defaults():
    Path(".env").write_text("MQUEUE_PORT=1\nMQUEUE_READY_MAX=11\nMQUEUE_LEASE_S=1.5\n")
    environ = {"MQUEUE_PORT": "2", "MQUEUE_READY_MAX": "22"}
    settings = load({"port": 3, "shards": None}, environ=environ)
    assert (settings.port, settings.ready_max, settings.lease_s, settings.max_retries, settings.shards) == (3, 22, 1.5, 3, 1)


def test_an_empty_value_is_not_set():
    Path(".env").write_text("DATABASE_URLS=\nREDIS_ADDRS=\nREDIS_PASSWORD=\nWAL_DIR=\nJWT_SECRET=\nNAMESPACE_QUOTAS=\nMQUEUE_PORT=9\n")
    assert load(environ={"MQUEUE_PORT": ""}) == Settings(port=9)


def test_lists_and_quotas():
    settings = with_env(
        DATABASE_URLS="postgresql://u:p@a,b/x, postgres://u:p@c/y",
        REDIS_ADDRS="one:6379,unix:///run/sock,rediss://two",
        JWT_SECRET=SECRET,
        NAMESPACE_QUOTAS="default:10000, payments:5000",
    )
    assert settings.database_urls == ("postgresql://u:p@a,b/x", "postgres://u:p@c/y")
    assert settings.redis_addrs == ("one:6379", "unix:///run/sock", "rediss://two")
    assert settings.namespace_quotas == {"default": 10_000, "payments": 5_000}
    assert not settings.embedded


def test_other_programs_lines_in_dotenv_pass():
    Path(".env").write_text("POSTGRES_PASSWORD=x\nenvDATABASE_URLS=\nDJANGO_DEBUG=1\nMQUEUE_URL=http://b\n")
    assert load(environ={"PATH": "/bin", "MQUEUE_TOKEN": "t", "MQUEUE_FAILPOINTS": "f"}) == Settings()


def test_what_kubernetes_sets_passes():
    made = {
        "MQUEUE_PORT": "tcp://10.0.0.1:8080",
        "MQUEUE_METRICS_PORT": "tcp://10.0.0.1:2112",
        "MQUEUE_SERVICE_HOST": "10.0.0.1",
        "MQUEUE_SERVICE_PORT": "8080",
        "MQUEUE_SERVICE_PORT_HTTP": "8080",
        "MQUEUE_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "MQUEUE_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    assert load(environ=made) == Settings()


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_a_misspelt_name_is_refused_with_a_hint(where):
    environ = {"MQUEUE_REDY_MAX": "5"}
    if where == ".env":
        Path(".env").write_text("MQUEUE_REDY_MAX=5\n")
        environ = {}
    message = refused(**environ)
    assert where in message and "MQUEUE_REDY_MAX" in message and "did you mean MQUEUE_READY_MAX?" in message


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"MQUEUE_PORT": "many"}, "MQUEUE_PORT = 'many': should be a valid integer"),
        ({"MQUEUE_PORT": "65536"}, "MQUEUE_PORT = '65536': should be less than or equal to 65535"),
        ({"MQUEUE_READY_MAX": "3"}, "greater than or equal to 4"),
        ({"MQUEUE_LOG_LEVEL": "loud"}, "MQUEUE_LOG_LEVEL = 'loud'"),
        ({"NAMESPACE_QUOTAS": "default=5"}, "NAMESPACE_QUOTAS = 'default=5': should be like"),
        ({"NAMESPACE_QUOTAS": "a:1,a:2"}, "each namespace once"),
        ({"NAMESPACE_QUOTAS": "a:-1"}, "NAMESPACE_QUOTAS"),
        ({**STORES, "DATABASE_URLS": "mysql://u:hidden@db/a"}, "DATABASE_URLS: should be URLs"),
        ({**STORES, "DATABASE_URLS": "postgres://db/a,postgres://db/a"}, "the same database twice"),
        ({**STORES, "REDIS_ADDRS": "cache"}, "REDIS_ADDRS: should be like host:6379"),
        ({"DATABASE_URLS": "postgresql://db/a"}, "REDIS_ADDRS is not set"),
        ({"REDIS_ADDRS": "cache:1"}, "DATABASE_URLS is not set"),
        ({**STORES, "JWT_SECRET": ""}, "JWT_SECRET is not set"),
        ({"JWT_SECRET": "s" * 31}, "JWT_SECRET: is shorter than 32 bytes"),
        ({"TLS_CERT_FILE": "/nowhere/cert.pem"}, "belong together"),
        (
            {"TLS_CERT_FILE": "/nowhere/cert.pem", "TLS_KEY_FILE": "/nowhere/key.pem"},
            "TLS_CERT_FILE: /nowhere/cert.pem is not there",
        ),
    ],
)
def test_a_wrong_value_is_named_in_one_line(environ, words):
    message = refused(**environ)
    assert words in message
    assert "hidden" not in message


def test_a_wrong_flag_is_named_as_a_flag():
    assert refused({"metrics_port": 70_000}).startswith("--metrics-port = '70000': ")


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_published_secret_is_refused_as_text_and_as_bytes(monkeypatch, encode):
    raw = bytes(range(200, 232))
    text = encode(raw).decode()
    assert with_env(JWT_SECRET=text).jwt_secret == text
    for published in (hashlib.sha256(raw).hexdigest(), hashlib.sha256(text.encode()).hexdigest()):
        monkeypatch.setattr(config, "PUBLISHED", frozenset({published}))
        assert "published example" in refused(JWT_SECRET=text)


def test_secrets_are_not_shown():
    shown = repr(with_env(**STORES, REDIS_PASSWORD="redis-secret"))
    assert SECRET not in shown and "u:p@" not in shown and "redis-secret" not in shown


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


def test_every_option_is_documented_and_can_be_set():
    options = reference()
    assert {option.field for option in options} == set(Settings.model_fields)
    assert all(option.help for option in options)
    ready = next(option for option in options if option.name == "MQUEUE_READY_MAX")
    assert (ready.default, ready.unit) == ("10000", "messages")


def test_sentinels_of_one_url_stay_together() -> None:
    addresses = "redis+sentinel://a:1,b:2/main, c:6379,redis+sentinel://d:3/other"
    settings = load({"database_urls": "postgresql://x/0", "redis_addrs": addresses, "jwt_secret": "s" * 40}, {}, Path("none"))
    assert settings.redis_addrs == ("redis+sentinel://a:1,b:2/main", "c:6379", "redis+sentinel://d:3/other")
    with pytest.raises(ConfigError, match="redis\\+sentinel"):
        load({"database_urls": "postgresql://x/0", "redis_addrs": "redis+sentinel://a:1", "jwt_secret": "s" * 40}, {}, Path("none"))
