"""The Lua library is put together here: what its operations share (`lua/lib/`), then one operation a file.

Its name, and with it that of each function, holds a hash of the text, so that brokers of two releases use one Redis.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "lua"
SHARED = ("shard", "unit", "settle")  # each uses those before it
BRINGS = frozenset({"apply", "arrive", "reach", "refill_end", "time_scan_end"})  # a full Redis refuses these
FULL = "_full"  # behind the name of one of them: it runs there, too, and brings nothing

REGISTER = "local register = redis.register_function\n"
COLLECT = "local functions, given = {}, { KEYS, ARGV }\nlocal function register(f) functions[f.function_name] = f.callback end\n"


@dataclass(frozen=True, slots=True)
class Library:
    name: str
    body: str

    @property
    def text(self) -> str:
        """Returns what Redis loads."""
        return f"#!lua name={self.name}\n{REGISTER}local LIBRARY = '{self.name}'\n{self.body}"

    def function(self, operation: str) -> str:
        """Returns the name by which Redis knows an operation."""
        return f"{self.name}_{operation}"

    def script(self, operation: str) -> str:
        """Returns a script that does one operation, for a Redis that is too full to load a library."""
        flags = "" if operation in BRINGS else " flags=allow-oom"
        ends = f"return functions['{self.function(operation)}'](given[1], given[2])\n"
        return f"#!lua{flags}\n{COLLECT}local LIBRARY = '{self.name}'\n{self.body}{ends}"


@cache
def load() -> Library:
    return library("".join(_parts()))


def library(body: str) -> Library:
    return Library(f"mqueue_{hashlib.sha256(body.encode()).hexdigest()[:16]}", body)


@cache
def operations() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.lua"))


def _parts() -> list[str]:
    shared = [(FOLDER / "lib" / f"{name}.lua").read_text() for name in SHARED]
    return shared + [f"do\n{(FOLDER / f'{name}.lua').read_text()}end\n" for name in operations()]
