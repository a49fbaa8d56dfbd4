"""The HTTP API: the only part of the broker that knows HTTP.

What happens here. A request passes `protocol` (the limits of its connection), `exchange` (bytes in, bytes out), `app`
(which endpoint its path has) and `endpoint` (method, token, errors, metrics). Then a method of `hot`, `rest` or
`schedules` decodes it into the structs of `mqueue.wire` (`decode`), converts and checks those (`convert`), and calls
the engine (`mqueue.broker.ports.Engine`). The server runs in the broker's own loop.

Who is authoritative. The token says which namespaces a caller may use, and nothing else is asked. Whatever comes
through here is checked: what is behind it trusts its arguments.

What failure does. Errors of any part leave as problem documents with a code, and say whether to repeat the request. A
client that hangs up ends its fetch, so that nothing is leased for nobody. Limits on headers, bodies, connections and
descriptors keep one client from starving the stores. No single request holds the loop: sizes are looked at before
what is in them, and what is large is worked on in steps. An answer that is not read is cut, and large
answers have a budget.

Which file to open:

    app.py           the two applications: the API and the metrics page; the table of paths
    endpoint.py      the frame around every endpoint
    hot.py           the hot endpoints: enqueue, dequeue, poll, ack, nack, extend
    rest.py          the endpoints of people, dashboards and workers: dead letters, topics, workers, messages, health
    schedules.py     the endpoints of schedules
    decode.py        bodies and query strings into structs, and what is wrong with them
    elements.py      the elements of a large array of JSON, found before they are decoded
    convert.py       structs into the types of `mqueue.message` and back, with the checks
    call.py          one request: its headers, its body and its answer within bounds
    problem.py       errors as problem documents
    auth.py          tokens
    quotas.py        enqueues a minute for each namespace
    waits.py         fetches that end when their client hangs up
    protocol.py      uvicorn's protocol, with limits
    exchange/        one request on a connection and its answer; the heads that were parsed before
    descriptors.py   file descriptors that connections must not take
    server.py        one server in the running loop
"""

from mqueue.broker.http.app import api, metrics_app
from mqueue.broker.http.auth import Authenticator
from mqueue.broker.http.quotas import Quotas
from mqueue.broker.http.server import HttpServer

__all__ = ["Authenticator", "HttpServer", "Quotas", "api", "metrics_app"]
