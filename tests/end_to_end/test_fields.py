"""Every field of a message is as it went after Redis has lost it and PostgreSQL has brought it back."""

import pytest

from mqueue import wire
from mqueue.client import Client
from mqueue.errors import Unavailable
from tests import fields
from tests.processes.broker import Broker
from tests.waiting import wait_until

BACK_S = 30.0  # within which a broker serves again whose Redis was emptied


def lose_redis(broker: Broker, id: int, attempts: int) -> None:
    """Empties Redis once PostgreSQL knows so many attempts of this message, and returns when the broker goes on."""
    query = "SELECT attempts FROM message WHERE id = %s"
    wait_until(lambda: broker.sql(query, [id]), "it is flushed", enough=lambda rows: rows == [(attempts,)])
    epoch = broker.metric("mqueue_epoch")
    with broker.redis() as redis:
        redis.flushall()
    wait_until(lambda: broker.metric("mqueue_epoch") > epoch, "another epoch is open", BACK_S)


@pytest.mark.parametrize("way", range(len(fields.EITHER)), ids=fields.EITHER)
def test_every_field_comes_back_from_postgresql(broker: Broker, way: int) -> None:
    item = fields.ways(topic=fields.EITHER[way])[way]
    with Client(broker.url, broker.token) as client:

        def status() -> wire.Status:
            told = client.message(id)
            assert told is not None
            return told

        def fetched() -> wire.Message:
            where = {"topics": item.topic, "namespace": item.namespace}
            [message] = wait_until(lambda: client.fetch(**where, wait=1), "it comes", BACK_S, despite=Unavailable)
            return message

        [id] = client.enqueue_many([item])
        lose_redis(broker, id, attempts=0)
        first = fetched()
        assert fields.differences(item, status()) == {}
        assert fields.differences(item, first) == {}
        assert [verdict.status for verdict in client.nack([first], retry_after=0)] == ["ok"]
        lose_redis(broker, id, attempts=1)
        second = fetched()
        assert (second.id, second.attempt) == (id, 2)
        assert fields.differences(item, second, but=fields.AFTER_NACK) == {}
        assert fields.differences(item, status(), but=fields.AFTER_NACK) == {}
        client.nack([second])
        [dead] = client.dead_letters(item.topic, namespace=item.namespace)
        assert fields.differences(item, dead) == {}
