"""What a test leaves at a broker that outlives it is taken away: its schedules would tick on, and what waits
would wait for ever.
"""

from collections.abc import Collection, Iterable
from contextlib import suppress

from mqueue import message as m
from mqueue.client import Client
from mqueue.errors import MQueueError


def clear(client: Client, namespace: str, topics: Iterable[str], ids: Collection[int]) -> None:
    """Ends everything in a namespace. `topics` and `ids` are known to have been used there.

    What the broker refuses stays: a test that has stopped it, or has a token that may less, does not fail for that.
    """
    with suppress(MQueueError):
        known = set(topics)
        for schedule in client.schedules(namespace):
            known.add(schedule.topic)
            client.delete_schedule(schedule.name, namespace=namespace)
        known |= {topic.topic for topic in client.topics(namespace)}
        ended = _end_due(client, namespace, sorted(known))
        for id in ids:  # delayed, or leased by a worker that has vanished
            if id not in ended:
                client.cancel(id)
        for topic in known:
            _delete_dead(client, namespace, topic)


def _end_due(client: Client, namespace: str, topics: list[str]) -> set[int]:
    """Acks all that can be fetched, and returns its ids."""
    ended = set[int]()
    for first in range(0, len(topics), m.TOPICS_MAX):
        some = topics[first : first + m.TOPICS_MAX]
        while messages := client.fetch(some, namespace=namespace, limit=m.BATCH_MAX):
            client.ack(messages)
            ended |= {message.id for message in messages}
    return ended


def _delete_dead(client: Client, namespace: str, topic: str) -> None:
    while dead := client.dead_letters(topic, namespace=namespace, limit=m.BATCH_MAX):
        client.delete_dead(topic, [item.id for item in dead], namespace=namespace)
