"""Tokens are JWT, HS256 only, `exp` required.

Claims: `scopes` (a list, or words in one string; without it everything is allowed), `allowed_namespaces` (a list;
without it all), `nbf` is obeyed, `aud`, `iat` and `iss` are not looked at. A claim of the wrong type makes the token
invalid.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jwt

from mqueue.broker.http.decode import is_text
from mqueue.clock import Clock
from mqueue.errors import Forbidden, NotFound, Unauthorized

Verb = Literal["read", "write", "delete"]

TOKENS_MAX = 4_096  # verified tokens remembered
TOKEN_BYTES_MAX = 8 * 1024

# verb of an endpoint → the scopes that allow it
ALLOWS: dict[Verb, frozenset[str]] = {
    "read": frozenset({"read", "admin"}),
    "write": frozenset({"write", "admin"}),
    "delete": frozenset({"write", "admin"}),  # of dead letters
}
_OPTIONS: Any = {
    "require": ["exp"],
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub", "verify_jti"), False),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a token speaks for. None: no restriction. Times: seconds since 1970."""

    verbs: frozenset[Verb] | None
    namespaces: frozenset[str] | None
    not_before: float
    expires_at: float

    def require(self, verb: Verb) -> None:
        if self.verbs is not None and verb not in self.verbs:
            raise Forbidden(f"the token's scopes do not allow this ({' or '.join(sorted(ALLOWS[verb]))} is needed)")

    def enter(self, namespace: str, item: int | None = None) -> None:
        """Refuses a namespace that the token may not see: it does not exist for it."""
        if self.namespaces is not None and namespace not in self.namespaces:
            raise NotFound("no such namespace for this token", item=item, field="namespace")


class Authenticator:
    """Verifies `Authorization: Bearer …`, and remembers what it verified until it expires."""

    def __init__(self, secret: str | bytes, clock: Clock) -> None:
        if not secret:
            raise ValueError("the JWT secret is empty")
        self._secret = secret
        self._clock = clock
        self._known: OrderedDict[bytes, Caller] = OrderedDict()

    def change(self, secret: str) -> None:
        """From now on this secret counts: tokens of the old one are refused, those that were verified, too."""
        self._secret = secret
        self._known.clear()

    def check(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Returns whom a request speaks for. Names are in lower case; the spelling `authorisation` counts too. Raises
        Unauthorized.
        """
        header = headers.get(b"authorization") or headers.get(b"authorisation")
        if header is None:
            raise Unauthorized("send a token: Authorization: Bearer …")
        caller = self._known.get(header)
        if caller is None:
            caller = self._verify(header)
            self._remember(header, caller)
        else:
            self._known.move_to_end(header)
        now = self._clock.wall_us() / 1e6
        if now >= caller.expires_at:
            self._known.pop(header, None)
            raise Unauthorized("the token has expired")
        if now < caller.not_before:
            raise Unauthorized("the token is not valid yet")
        return caller

    def _remember(self, header: bytes, caller: Caller) -> None:
        self._known[header] = caller
        if len(self._known) > TOKENS_MAX:
            self._known.popitem(last=False)

    def _verify(self, header: bytes) -> Caller:
        scheme, _, token = header.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthorized("the scheme must be Bearer")
        if len(token) > TOKEN_BYTES_MAX:
            raise Unauthorized("the token is too long")
        try:
            claims = jwt.decode(token.strip(), self._secret, algorithms=["HS256"], options=_OPTIONS)
        except jwt.MissingRequiredClaimError:
            raise Unauthorized("the token has no exp claim") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthorized("the token is not valid") from None
        return _caller(claims)


def _caller(claims: dict[str, Any]) -> Caller:
    scopes = _strings(claims, "scopes")
    verbs = None if scopes is None else frozenset(verb for verb, enough in ALLOWS.items() if enough & scopes)
    not_before = _seconds(claims, "nbf") if "nbf" in claims else -math.inf
    return Caller(verbs, _strings(claims, "allowed_namespaces"), not_before, _seconds(claims, "exp"))


def _strings(claims: dict[str, Any], name: str) -> frozenset[str] | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, str) and name == "scopes":
        value = value.split()
    if not isinstance(value, list) or not all(isinstance(part, str) and is_text(part) for part in value):
        raise Unauthorized(f"the token's {name} must be a list of strings")
    return frozenset(value)


def _seconds(claims: dict[str, Any], name: str) -> float:
    try:
        seconds = float(claims[name]) if type(claims[name]) in (int, float) else math.nan
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise Unauthorized(f"the token's {name} must be a number of seconds")
    return seconds
