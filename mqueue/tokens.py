"""Make tokens: JWT, HS256. What a broker demands of one stands in `mqueue.broker.http.auth`."""

from collections.abc import Sequence
from typing import Any

import jwt


def issue(secret: str, *, subject: str, now: float, ttl: float, namespaces: Sequence[str] = (), scopes: Sequence[str] = ()) -> str:
    """A token valid from `now` (seconds since 1970) for `ttl` seconds; no namespaces or scopes given: for all."""
    claims: dict[str, Any] = {"sub": subject, "iat": int(now), "exp": int(now + ttl)}
    if namespaces:
        claims["allowed_namespaces"] = list(namespaces)
    if scopes:
        claims["scopes"] = list(scopes)
    return jwt.encode(claims, secret, algorithm="HS256")
