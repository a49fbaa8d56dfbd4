"""This module finds the broker and the token: in arguments, else in the environment, else in what a broker on this
machine left in its data dir.
"""

import os
import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from mqueue.errors import MQueueError
from mqueue.paths import Endpoint, read_endpoint

_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[\w-]{1,63}(\.[\w-]{1,63})*\.?)(:\d{1,5})?(/[!-~]*)?", re.ASCII)
_TOKEN = re.compile(r"[!-~]+")  # what an HTTP header can carry


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
    """Returns the endpoint to use. A token kept in the data dir goes only to the broker that left it there.

    White space around either is dropped. Raises NoEndpoint, also for what is no URL or no token; it shows no secret.
    """
    environ = os.environ if environ is None else environ
    url = (url or environ.get("MQUEUE_URL") or "").strip() or None
    token = (token or environ.get("MQUEUE_TOKEN") or "").strip() or None
    if url is None or token is None:
        kept = left()
        if url is None and kept is not None:
            url = kept.url
        if token is None and kept is not None and kept.url.rstrip("/") == (url or "").rstrip("/"):
            token = kept.token
    if url is None:
        raise NoEndpoint("no broker to talk to: set MQUEUE_URL and MQUEUE_TOKEN, or start one on this machine: mqueue broker")
    if not is_url(url):
        raise NoEndpoint(f"{shown(url)!r} is not the URL of a broker: like http://host:8080, with no password in it")
    if token is not None and not _TOKEN.fullmatch(token):
        raise NoEndpoint("the token (MQUEUE_TOKEN, --token) holds a space or a letter that no token has: copy it again")
    return Endpoint(url.rstrip("/"), token)


def transport(environ: Mapping[str, str] | None = None) -> str:
    """Returns what carries requests, by `MQUEUE_TRANSPORT`: "lean", our own few lines, or "library", aiohttp and
    urllib3, which know more odd ways of HTTP and TLS. Raises NoEndpoint for another word.
    """
    chosen = ((os.environ if environ is None else environ).get("MQUEUE_TRANSPORT") or "lean").strip()
    if chosen not in ("lean", "library"):
        raise NoEndpoint(f"MQUEUE_TRANSPORT={chosen!r}: it is lean or library")
    return chosen


def is_url(url: str) -> bool:
    """Is it scheme, host, perhaps port and path, and nothing else that an HTTP library would stumble over?"""
    try:
        return _URL.fullmatch(url) is not None and urlsplit(url).port != 0  # it raises for a wrong address or port
    except ValueError:
        return False


def shown(url: str) -> str:
    """Returns the URL without user, password and query."""
    return re.sub(r"^(\w+://)?.*@", r"\1…@", url, flags=re.DOTALL).partition("?")[0]
