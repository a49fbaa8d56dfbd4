"""A worker takes messages from the topics of its tasks. They are checked before it begins."""

from collections.abc import Sequence
from typing import Any

from mqueue import message as m
from mqueue.errors import MQueueError
from mqueue.worker.tasks.app import MQueue
from mqueue.worker.tasks.task import Task


class WorkerError(MQueueError):
    """The worker cannot start; `detail` says why."""

    code, title = "worker", "The worker cannot start"


def sources(app: MQueue, namespace: str | None, topics: Sequence[str], exclude: Sequence[str] = ()) -> list[m.TopicName]:
    """Chooses where to fetch: of the tasks' topics, those asked for. Raises WorkerError where that is nothing."""
    known = app.topics(namespace)
    if not known:
        raise WorkerError("no tasks found: is there a function with @task in the modules named?")
    if unknown := {*topics, *exclude} - {name.topic for name in known}:
        of_tasks = ", ".join(sorted({name.topic for name in known}))
        raise WorkerError(f"no task has topic {', '.join(sorted(unknown))}; there are: {of_tasks}")
    if both := set(topics) & set(exclude):
        raise WorkerError(f"asked for and excluded at once: {', '.join(sorted(both))}")
    found = [name for name in known if (not topics or name.topic in topics) and name.topic not in exclude]
    if not found:
        raise WorkerError("every topic of the tasks is excluded")
    return found


def batches(app: MQueue, namespace: str | None, topics: Sequence[m.TopicName]) -> dict[m.TopicName, Task[..., Any]]:
    """Finds the tasks that take batches, by their topics. Raises WorkerError where another task has the same: no batch
    could be asked for there.
    """
    users: dict[m.TopicName, list[Task[..., Any]]] = {}
    for task in app:
        users.setdefault(m.TopicName(namespace or task.namespace, task.topic), []).append(task)
    found = {}
    for name in topics:
        batched = [task for task in users[name] if task.batch is not None]
        if batched and len(users[name]) > 1:
            others = ", ".join(task.name for task in users[name] if task is not batched[0])
            raise WorkerError(f"task {batched[0].name} takes batches, so it needs a topic of its own: {name} is also that of {others}")
        if batched:
            found[name] = batched[0]
    return found


def prepare(app: MQueue) -> None:
    """Can its tasks be run? Raises WorkerError, naming the task: an annotation that cannot be resolved, no way into a
    process.
    """
    for task in app:
        try:
            task.shape.prepare()
            if task.executor == "process":
                task.check_process()
        except TypeError as error:
            raise WorkerError(f"task {task.name}: {error}") from error
