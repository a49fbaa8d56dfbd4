"""This module tells a Redis that refuses from one that does not answer, and from a script that failed.

It is decided here and nowhere else, by the library's exceptions; where it has none, by the code word of the answer. Of
one that does not answer the exceptions of the system tell whether its name or its certificate is to blame.
"""

import socket
import ssl

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from mqueue.broker.faults import CacheLost, CacheRefused, Refusal

NO_ENTRY = (AuthenticationError, AuthorizationError, NoPermissionError)
# Redis says these before the first write of a script, and of what is no script before it does anything.
BY_CLASS: tuple[tuple[tuple[type[RedisError], ...], Refusal], ...] = (
    ((OutOfMemoryError,), Refusal.FULL),
    ((ReadOnlyError,), Refusal.READ_ONLY),
    ((BusyLoadingError,), Refusal.LOADING),
    (NO_ENTRY, Refusal.NO_ACCESS),
    ((MovedError,), Refusal.ELSEWHERE),  # to the library it is an AskError, too
    ((AskError, ClusterDownError, TryAgainError), Refusal.NO_CLUSTER),  # MASTERDOWN, too
)
BY_CODE = {
    "OOM": Refusal.FULL,  # of a library without a class for it
    "BUSY": Refusal.BUSY,
    "UNKILLABLE": Refusal.BUSY,
    "MISCONF": Refusal.UNSAVED,
    "NOREPLICAS": Refusal.NO_REPLICAS,
}
NO_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}  # the others say nothing of the name
IN_A_SCRIPT = "@user_"  # Redis adds it, and whether it is a function or a script, to whatever is raised within one


class ScriptFailed(Exception):
    """A script ended in its midst: what it found is not what it should be."""


def kind_of(error: Exception) -> Refusal | None:
    """Returns why Redis refused; None where it did not answer. Raises ScriptFailed."""
    for classes, kind in BY_CLASS:
        if isinstance(error, classes):
            return kind
    if not isinstance(error, ResponseError):
        return None
    text = str(error)
    if code := BY_CODE.get(text.partition(" ")[0]):
        return code
    if IN_A_SCRIPT in text:
        raise ScriptFailed(text) from error
    return Refusal.OTHER


def fault(what: str, error: Exception) -> CacheLost:
    """Returns the fault that an error of the library is. `what`: was asked, of which shard. Raises ScriptFailed."""
    text = f"{what}: {error or type(error).__name__}"
    kind = kind_of(error)
    if kind is Refusal.ELSEWHERE:  # the library keeps only which slot, and which node
        text = f"{what}: MOVED {error}"
    return CacheLost(text, unanswered(error)) if kind is None else CacheRefused(kind, text)


def unanswered(error: BaseException | None) -> Refusal:
    """Returns why no answer came, as far as an error and what led to it tell."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return Refusal.UNTRUSTED
        if isinstance(error, socket.gaierror) and error.errno in NO_NAME:
            return Refusal.UNKNOWN_HOST
        if isinstance(error, NO_ENTRY):  # of a sentinel
            return Refusal.NO_ACCESS
        error = error.__cause__ or error.__context__
    return Refusal.SILENT
