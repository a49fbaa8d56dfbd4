"""Tokens: what makes one valid, and that a remembered one is not valid for longer."""

import base64
import json
from typing import Any

import jwt
import pytest

from mqueue.broker.http import auth
from mqueue.broker.http.auth import Authenticator, Caller
from mqueue.errors import Forbidden, NotFound, Unauthorized

SECRET = "a secret of sixty-four characters or more, so that HS512 is content too"
NOW = 1_900_000_000


class FakeClock:
    now = float(NOW)

    def wall_us(self) -> int:
        return int(self.now * 1e6)

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def authenticator(clock: FakeClock) -> Authenticator:
    return Authenticator(SECRET, clock)


def header(algorithm: str = "HS256", secret: str = SECRET, **claims: Any) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + jwt.encode({"exp": NOW + 10} | claims, secret, algorithm=algorithm).encode()}


def test_a_plain_token_may_do_everything(authenticator: Authenticator) -> None:
    caller = authenticator.check(header(sub="someone", aud="who", iat=NOW + 1000, iss="us"))
    caller.require("read")
    caller.require("write")
    caller.require("delete")
    caller.enter("any")


def test_expiry_also_of_a_remembered_token(authenticator: Authenticator, clock: FakeClock) -> None:
    headers = header()
    authenticator.check(headers)
    clock.now = NOW + 9.9
    authenticator.check(headers)
    clock.now = NOW + 10
    for _ in range(2):
        with pytest.raises(Unauthorized, match="expired"):
            authenticator.check(headers)


def test_not_before(authenticator: Authenticator, clock: FakeClock) -> None:
    headers = header(nbf=NOW + 5)
    with pytest.raises(Unauthorized, match="not valid yet"):
        authenticator.check(headers)
    clock.now = NOW + 5
    authenticator.check(headers)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": None},
        {"exp": NOW},
        {"exp": int("9" * 400)},
        {"exp": -int("9" * 400)},
        {"nbf": int("9" * 400)},
        {"nbf": "soon"},
        {"nbf": None},
        {"scopes": 5},
        {"scopes": [1]},
        {"scopes": None},
        {"scopes": {"read": True}},
        {"allowed_namespaces": "default"},
        {"allowed_namespaces": None},
        {"allowed_namespaces": [None]},
        {"allowed_namespaces": ["a", "b\x00"]},
        {"allowed_namespaces": ["\ud800"]},
        {"scopes": "read \udfff"},
    ],
    ids=str,
)
def test_wrong_claims(authenticator: Authenticator, claims: dict[str, Any]) -> None:
    encoded = jwt.api_jws.encode(json.dumps({"exp": NOW + 10} | claims).encode(), SECRET, algorithm="HS256")
    with pytest.raises(Unauthorized):
        authenticator.check({b"authorization": b"Bearer " + encoded.encode()})


def test_exp_is_required(authenticator: Authenticator) -> None:
    encoded = jwt.encode({"sub": "x"}, SECRET, algorithm="HS256")
    with pytest.raises(Unauthorized, match="exp"):
        authenticator.check({b"authorization": f"Bearer {encoded}".encode()})


def test_only_hs256_with_our_secret(authenticator: Authenticator) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": NOW + 10}).encode()).rstrip(b"=")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=") + b"." + claims + b"."
    good = header()[b"authorization"]
    for value in (
        header(secret="another secret of at least thirty-two characters")[b"authorization"],
        header(algorithm="HS512")[b"authorization"],
        b"Bearer " + unsigned,
        good[:-2],
        good.replace(b"Bearer", b"Basic"),
        b"Bearer",
        b"Bearer \xff",
        b"Bearer " + b"x" * 9000,
        b"",
    ):
        with pytest.raises(Unauthorized):
            authenticator.check({b"authorization": value})
    with pytest.raises(Unauthorized):
        authenticator.check({})


def test_the_scheme_in_any_case_and_the_other_spelling(authenticator: Authenticator) -> None:
    value = header()[b"authorization"]
    authenticator.check({b"authorisation": value.replace(b"Bearer", b"bearer")})


def test_remembered_tokens_are_bounded(authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "TOKENS_MAX", 2)
    for n in range(5):
        authenticator.check(header(sub=str(n)))
    assert len(authenticator._known) == 2


def test_an_empty_secret_is_refused(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="empty"):
        Authenticator("", clock)


def test_caller() -> None:
    caller = Caller(frozenset({"read"}), frozenset({"mine"}), 0, 0)
    caller.require("read")
    caller.enter("mine")
    with pytest.raises(Forbidden, match="admin or write"):
        caller.require("write")
    with pytest.raises(NotFound) as refused:
        caller.enter("other", 3)
    assert refused.value.item == 3
