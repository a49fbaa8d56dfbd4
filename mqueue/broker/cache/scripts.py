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
    own = path.read_text()
    uses = next(line for line in own.splitlines() if line.startswith("-- uses:")).split(":", 1)[1].split()
    text = "".join((FOLDER / "lib" / f"{part}.lua").read_text() for part in uses) + own
    return Script(path.stem, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
