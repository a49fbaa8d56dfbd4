"""The Lua scripts are loaded here: one operation a file, with the shared parts that its `-- uses:` line names put
before it.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    name: str
    text: str
    sha: str


@cache
def load() -> dict[str, Script]:
    return {path.stem: _script(path) for path in sorted(FOLDER.glob("*.lua"))}


def _script(path: Path) -> Script:
    text = _with_parts(path)
    return Script(path.stem, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _with_parts(path: Path) -> str:
    """Returns what a file uses, and what that uses, before the file itself."""
    own = path.read_text()
    uses = next((line for line in own.splitlines() if line.startswith("-- uses:")), "-- uses:").split(":", 1)[1].split()
    return "".join(_with_parts(FOLDER / "lib" / f"{part}.lua") for part in uses) + own
