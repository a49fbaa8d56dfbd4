"""Reads a message as a job of one of the worker's tasks, or says why it is turned away."""

from collections.abc import Mapping
from typing import Any

from mqueue import message as m
from mqueue import wire
from mqueue.worker.arguments import codec
from mqueue.worker.running import outcome
from mqueue.worker.running.outcome import Outcome
from mqueue.worker.tasks.app import MQueue
from mqueue.worker.tasks.job import Job
from mqueue.worker.tasks.task import Task


def read(message: wire.Message, app: MQueue, batches: Mapping[m.TopicName, Task[..., Any]]) -> Job | Outcome:
    """Gives the message's job, or the outcome of a message that no handler here can be given. `batches`: the tasks
    whose topics are for batches of theirs alone.

    Never raises: a misfit, or anything else that a task's own types do, is that message's failure and no other's.
    """
    try:
        call = codec.decode(message.payload)
        task = app.get(call.task)
        if task is None:
            return outcome.unknown(call.task)
        batched = batches.get(m.TopicName(message.namespace, message.topic)) if batches else None
        if batched is not None and batched is not task:
            return outcome.misplaced(call.task, message.topic)
        args, kwargs = task.shape.fit(call.args, call.kwargs)
        return Job(message, task, args, kwargs, message.lease)
    except Exception as error:
        return outcome.decide(error)
