"""mqueue meets other libraries here: each has a module, which needs that library and says so.

What happens here. Each module turns what its library offers (a lifespan, an extension, a tracer, a task backend) into
middleware, or into calls of `mqueue.client`. `pip install 'mqueue[opentelemetry]'` brings the library along.

Who is authoritative. The library decides on its own words, mqueue on the job: an integration never changes how it ends.

What failure does. A library that is missing, or set up wrongly, raises and says what to install or to call.

Nothing else of mqueue imports them, and they do not import each other. Which file to open:

    django/           Django's own tasks, on mqueue
    fastapi.py        a client as a dependency; a busy broker is a 503
    flask.py          an extension; handlers run in the app's context
    opentelemetry.py  spans of enqueues and runs
    sentry.py         errors of handlers as events
    metadata.py       what carries a trace from the enqueuer to the handler
"""
