"""This makes tokens: JWT, HS256. `mqueue.broker.http.auth` says what a broker demands of one."""

from collections.abc import Sequence
from typing import Any

import jwt


def issue(secret: str, *, subject: str, now: float, ttl: float, namespaces: Sequence[str] = (), scopes: Sequence[str] = ()) -> str:
    """Returns a token valid from `now` (seconds since 1970) for `ttl` seconds. Without namespaces or
    scopes it is for all.
    """
    claims: dict[str, Any] = {"sub": subject, "iat": int(now), "exp": int(now + ttl)}
    if namespaces:
        claims["allowed_namespaces"] = list(namespaces)
    if scopes:
        claims["scopes"] = list(scopes)
    return jwt.encode(claims, secret, algorithm="HS256")
