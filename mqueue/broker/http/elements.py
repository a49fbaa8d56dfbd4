"""The elements of a large JSON array are found here without decoding any of them, in bounded steps. This is pure."""

import re
from collections.abc import Iterator


class BadElement(Exception):
    """An array is none, or its element `index` is none that may be there."""

    def __init__(self, detail: str, index: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.index = index


def strings(body: bytes, start: int = 0, end: int | None = None) -> int:
    """Returns how many strings JSON has, up to twice as many where they end with a backslash: never too few by more."""
    return (body.count(b'"', start, end) - body.count(b'\\"', start, end)) // 2


# A bounded number of strings and what is between them, and then a bracket, if one is there.
_TO_BRACKET = re.compile(rb'[^"\[\]{}]*+(?:"(?:[^"\\]++|\\.)*+"[^"\[\]{}]*+){0,1000}+([\[\]{}])?+', re.DOTALL)
_SPACE = b" \t\r\n"
TOO_MANY = "more strings, lists and objects than its fields and its metadata can have"


def elements(body: bytes, most: int, brackets_max: int) -> Iterator[tuple[int, int] | None]:
    """Yields where each object of an array begins and ends, in JSON that is well-formed; None after a step without
    one. Raises BadElement for more than `most`, for one with more lists and objects than `brackets_max` allows, and
    for something else.
    """
    if body.lstrip(_SPACE)[:1] != b"[":
        raise BadElement("must be an array, also for one: [{…}]")
    depth = count = brackets = start = 0
    end = body.index(b"[") + 1  # of what was there before
    for steps, found in enumerate(_TO_BRACKET.finditer(body, end)):
        if steps % 256 == 0:
            yield None
        if (kind := found[1]) is None:
            continue
        at = found.end() - 1
        if depth == 0 and body[end:at].strip(_SPACE) != (b"," if count and kind not in b"]}" else b""):
            raise BadElement("expected object", count)
        brackets += 1
        if brackets > brackets_max:
            raise BadElement(TOO_MANY, count)
        depth += 1 if kind in b"[{" else -1
        if depth == 1 and kind in b"[{":
            start, brackets = at, 0
        elif depth == 0:
            end, count = at + 1, count + 1
            yield start, end
            if count == most and body[end:].lstrip(_SPACE) != b"]":
                raise BadElement(f"expected an array of length <= {most}")
