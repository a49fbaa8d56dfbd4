"""Where mqueue meets other libraries: a module each, which needs that library (`pip install 'mqueue[opentelemetry]'`)
and says so.

Nothing else of mqueue imports them.
"""
