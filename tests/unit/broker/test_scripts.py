"""The library of scripts is whole: it has each operation, and a full Redis refuses those that say so."""

import re

from mqueue.broker.cache import scripts


def test_each_operation_is_registered_under_the_name_of_its_file() -> None:
    for name in scripts.operations():
        found = re.findall(r"(?m)^operation\('(\w+)', function\(", (scripts.FOLDER / f"{name}.lua").read_text())
        assert found == [name]


def test_a_full_redis_refuses_what_brings_messages() -> None:
    brings = {name for name in scripts.operations() if re.search(r"(?m)^end, true(?:,|\))", (scripts.FOLDER / f"{name}.lua").read_text())}
    assert brings == scripts.BRINGS


def test_another_text_is_another_library() -> None:
    mine, other = scripts.load(), scripts.library(scripts.load().body + "\n")
    assert mine.name != other.name
    assert mine.function("tick") != other.function("tick")
    assert mine.text.startswith(f"#!lua name={mine.name}\n")
