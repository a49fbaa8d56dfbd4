"""An exchange is one request on a connection and its answer: how bytes become a scope, and an answer becomes bytes.

What happens here. The connection (`http/protocol.py`) has its bytes parsed, and hands over what came; the applications
see `receive` and `send`. A client says the same head again and again: one that was parsed before is known by its bytes.
Head and body of an answer leave in one write, so that the client is woken once.

Who is authoritative. The parser, for what a head says; nothing here reads one by itself.

What failure does. A client that hangs up is told to whoever receives; an answer that fails half-way closes its
connection.

Which file to open:

    exchange.py    one request and its answer
    heads.py       the heads that were parsed before
"""
