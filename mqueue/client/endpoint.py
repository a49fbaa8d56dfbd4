"""Which broker, with what token: arguments, else the environment, else what a broker on this machine left in its data dir."""

import os
from collections.abc import Callable, Mapping

from mqueue.errors import MQueueError
from mqueue.paths import Endpoint, read_endpoint


class NoEndpoint(MQueueError):
    """No broker is known; `detail` says what to set."""

    code, title = "no-endpoint", "No broker to talk to"


def discover(
    url: str | None = None,
    token: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    left: Callable[[], Endpoint | None] = read_endpoint,
) -> Endpoint:
    """The endpoint to use. A token kept in the data dir goes only to the broker that left it there. Raises NoEndpoint."""
    environ = os.environ if environ is None else environ
    url = url or environ.get("MQUEUE_URL") or None
    token = token or environ.get("MQUEUE_TOKEN") or None
    if url is None or token is None:
        kept = left()
        if url is None and kept is not None:
            url = kept.url
        if token is None and kept is not None and kept.url.rstrip("/") == (url or "").rstrip("/"):
            token = kept.token
    if url is None:
        raise NoEndpoint("no broker to talk to: set MQUEUE_URL and MQUEUE_TOKEN, or start one on this machine: mqueue broker")
    if not url.startswith(("http://", "https://")):
        raise NoEndpoint(f"{url!r} is not the URL of a broker: it starts with http:// or https://")
    return Endpoint(url.rstrip("/"), token)
