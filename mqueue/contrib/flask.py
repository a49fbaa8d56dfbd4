"""This Flask extension is used by `mq = MQueue()`, `@mq.task`, `mq.init_app(app)`. Handlers run in the app's context.

MQUEUE_URL, MQUEUE_TOKEN   in `app.config`: the broker; without them it is found as usual
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Unpack

import mqueue
from mqueue import message as m
from mqueue.worker.tasks.job import Current
from mqueue.worker.tasks.middleware import LogContext, Middleware
from mqueue.worker.tasks.producer import ClientOptions

try:
    from flask import Flask
except ImportError as error:
    raise ImportError("mqueue.contrib.flask needs Flask: pip install 'mqueue[flask]'") from error


class MQueue(mqueue.MQueue):
    """`app` is the Flask app, or None if `init_app(app)` comes later. The rest is as for `mqueue.MQueue`; the
    broker is the app's.

    The context is around all other middleware. A worker needs the Flask app too: name the module that makes it, and
    this object, in `mqueue worker`. A process of `executor="process"` imports the task's module alone: that must import
    the one that makes the app.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        namespace: str = m.DEFAULT_NAMESPACE,
        middleware: Sequence[Middleware] = (LogContext(),),
        **client: Unpack[ClientOptions],
    ) -> None:
        super().__init__(namespace=namespace, middleware=[_AppContext(self), *middleware], **client)
        self._flask: Flask | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Handlers run in its context, enqueues go to its broker. Of several apps (an app factory in tests makes some)
        the last one counts.
        """
        self._flask = app
        app.extensions["mqueue"] = self
        self.producer.connect(app.config.get("MQUEUE_URL"), app.config.get("MQUEUE_TOKEN"))

    @property
    def flask(self) -> Flask:
        """Returns the Flask app. Raises RuntimeError before `init_app`."""
        if self._flask is None:
            raise RuntimeError(
                "no Flask app: call init_app(app) in a module that the worker imports. For a task with executor='process' the task's own "
                "module must import that one, in its last line"
            )
        return self._flask


class _AppContext(Middleware):
    def __init__(self, queue: MQueue) -> None:
        self._queue = queue

    def run(self, job: Current) -> AbstractContextManager[object]:
        return self._queue.flask.app_context()
