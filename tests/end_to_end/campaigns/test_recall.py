"""The short form of `recall.py`."""

from tests.campaigns import recall


def test_an_urgent_message_is_the_next_to_start() -> None:
    found = recall.run(urgent=8, backlog=1_000)
    said = "\n".join(recall.report(found))
    assert found.urgent and not found.overtaken(), said
    assert found.left > 0, said
