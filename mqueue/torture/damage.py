"""Damage is what a fault says that it took."""

from typing import NamedTuple


class Damage(NamedTuple):
    """`lost`: did Redis forget? `down`: brokers that were away meanwhile. `reached`: did the fault happen? `note`: more
    of it.
    """

    lost: bool = False
    down: frozenset[int] = frozenset()
    reached: bool = True
    note: str = ""
