"""The HTTP API: the only part of the broker that knows HTTP.

A request passes, in this order: `protocol` (limits of the connection), `app` (path → endpoint), `endpoint` (method,
token, errors, metrics), `hot` or `cold` (one method per path), which `decode` it into the structs of `mqueue.wire`,
`convert` those, and call the engine (`mqueue.broker.ports.Engine`). Errors of any part leave as problem documents
(`problem`). `server` runs all this in the broker's own loop.
"""

from mqueue.broker.http.app import api, metrics_app
from mqueue.broker.http.auth import Authenticator
from mqueue.broker.http.quotas import Quotas
from mqueue.broker.http.server import HttpServer

__all__ = ["Authenticator", "HttpServer", "Quotas", "api", "metrics_app"]
