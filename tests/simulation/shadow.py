"""Two libraries beside each other: whatever the simulation asks of Redis is asked of a second server, too, whose
scripts are those of another revision. They must answer alike, and hold the same.

It is the cheapest proof that a change of the scripts changed nothing but what they cost.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from importlib import util
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import OutOfMemoryError

from mqueue.broker.cache.scripts import FULL

ROOT = Path(__file__).parents[2]
CACHE = "mqueue/broker/cache"
OLD_TIME, OLD_GIVEN = "call('TIME')", "{ math.floor(KEYS[2] / 1000000), KEYS[2] % 1000000 }"
LOOK_EVERY = 25  # calls: a look at all that the two servers hold costs as much as many calls
# what the two lay out in different ways, or only one of them has
OWN_KEYS = ("applied", "reply", "doubtful")
OWN_FIELDS = ("used", "next_due", "next_end", "keys_at", "tick_at", "tick_node", "waits")
BY_CHANCE = ("idle_topics", "crowded")  # they look at some topics by chance


class Differs(AssertionError):
    """The two do not answer alike."""


class Scripts:
    """The scripts of a revision, in a server of their own."""

    def __init__(self, client: Any, revision: str) -> None:
        self._client = client
        self._shas: dict[str, str] = {}
        with tempfile.TemporaryDirectory(prefix="mq-old-") as folder:
            command = ["git", "archive", revision, f"{CACHE}/scripts.py", f"{CACHE}/lua"]
            packed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
            with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
                tar.extractall(folder, filter="data")
            loaded = _module(Path(folder, CACHE, "scripts.py")).load()
        if isinstance(loaded, dict):  # one script an operation, before there was a library
            self._shas = {name: client.script_load(s.text.replace(OLD_TIME, OLD_GIVEN)) for name, s in loaded.items()}
        else:
            from .cache import told_the_time

            self._library = told_the_time(loaded.body)
            client.function_load(self._library.text, replace=True)

    @property
    def is_old(self) -> bool:
        """Are they of the time before there was a library?"""
        return bool(self._shas)

    def run(self, operation: str, *args: Any) -> Any:
        """`args`: from the number of keys on."""
        if self._shas:
            name = operation.removesuffix(FULL)
            return self._client.execute_command("EVALSHA", self._shas[name], *(_old_apply(args) if name == "apply" else args))
        return self._client.execute_command("FCALL", self._library.function(operation), *args)


class Shadow:
    """The second server. `steps`: calls that were compared."""

    def __init__(self, client: Any, second: Any, revision: str) -> None:
        self.client, self.second = client, second
        self.steps = 0
        self._scripts = Scripts(second, revision)

    @property
    def is_old(self) -> bool:
        return self._scripts.is_old

    def compare(self, operation: str, args: tuple[Any, ...], result: Any) -> None:
        """`result`: of the first server's call, which has been made."""
        if isinstance(result, OutOfMemoryError):
            return  # it was refused before it began; the other variant is called next
        try:
            other = self._scripts.run(operation, *args)
        except redis.RedisError as error:
            other = error
        self.steps += 1
        if isinstance(result, Exception) and isinstance(other, Exception):
            return
        if self.is_old and isinstance(result, list) and isinstance(other, list):
            result, other = _as_old(operation, result), _as_old(operation, other)
        if operation not in BY_CHANCE and _plain(result) != _plain(other):
            raise Differs(f"{operation} {args}: {result!r} is not {other!r}")
        if operation in BY_CHANCE or self.steps % LOOK_EVERY == 0:
            self.look(operation)

    def look(self, after: str) -> None:
        mine, other = _held(self.client), _held(self.second)
        for key in sorted(mine.keys() | other.keys()):
            if self.is_old and b":waiters:" in key:
                continue  # those whose time is over stayed until the next wake, which may not look for them now
            if mine.get(key) != other.get(key):
                raise Differs(f"{key!r} after {after}: {mine.get(key)!r} is not {other.get(key)!r}")


class Both:
    """redis-py's client, each of whose calls is made at both servers; the answer is the first one's."""

    def __init__(self, first: Any, second: Any) -> None:
        self._first, self._second = first, second

    def __getattr__(self, name: str) -> Any:
        first, second = getattr(self._first, name), getattr(self._second, name)
        if name == "pipeline":
            return lambda *args, **options: Both(first(*args, **options), second(*args, **options))

        def call(*args: Any, **options: Any) -> Any:
            second(*args, **options)
            return first(*args, **options)

        return call


def _old_apply(args: tuple[Any, ...]) -> list[Any]:
    """The arguments of a batch, as they were: seven for each enqueue, whether it has keys or not."""
    head, (stamp, _, groups, shapes), rest = [*args[:10]], args[10:14], iter(args[14:])
    head.append(int(stamp != 0))
    for i, shape in enumerate(shapes):
        message = [next(rest), next(rest)]
        keys = [next(rest) for _ in range(4)] if shape == "1" else [b""] * 4
        head += (int.from_bytes(groups[2 * i : 2 * i + 2]), *message, *keys)
    return [*head, *rest]


def _as_old(operation: str, answer: list[Any]) -> list[Any]:
    """Returns what both tell. A tick tells now when the next one is due; of the bytes that are taken the keys of the
    same call did not count.
    """
    if operation == "tick":
        return answer[:4]
    if operation.startswith("apply") and answer[0] in (b"ok", b"done"):
        return [b"ok", answer[1][:24], answer[1][32:]]
    return answer


def _module(path: Path) -> Any:
    spec = util.spec_from_file_location("scripts_of_another_revision", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _plain(answer: Any) -> Any:
    return repr(answer) if isinstance(answer, Exception) else answer


def _is_own(field: bytes) -> bool:
    return field.decode("latin-1").partition(":")[0] in (*OWN_KEYS, *OWN_FIELDS)


def _held(client: Any) -> dict[bytes, Any]:
    """What a server holds, whatever the order of a hash or set; a wake list names topics in the order of a Lua
    table.
    """
    found: dict[bytes, Any] = {}
    for key in client.scan_iter(count=1000):
        kind = client.type(key)
        if key.decode().rpartition(":")[2] in OWN_KEYS:
            continue
        if kind == b"hash":
            found[key] = {name: value for name, value in client.hgetall(key).items() if not _is_own(name)}
        elif kind == b"zset":
            found[key] = client.zrange(key, 0, -1, withscores=True)
        elif kind == b"set":
            found[key] = client.smembers(key)
        elif kind == b"list":
            listed = client.lrange(key, 0, -1)
            found[key] = sorted(one for one in listed if one != b"@") if b":wake:" in key else listed
        else:
            found[key] = client.dump(key)
    return {key: value for key, value in found.items() if value}
