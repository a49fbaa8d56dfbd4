"""The interpreters that the systems run in. What a peer needs is no dependency of mqueue: it gets a venv of its own.

The peers' venv is kept between runs, in `.venv-peers`, until its requirements change. A baseline is a work tree of an
older revision with a venv of its own; both are removed at the end.
"""

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "benchmarks" / "peers" / "requirements.txt"
PEERS = ROOT / ".venv-peers"
STAMP = "requirements.txt"  # in the venv: what was installed there
LINK = "code"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """`path` is its PYTHONPATH: the benchmarks, and the mqueue that it is to import, if any."""

    python: Path
    path: tuple[Path, ...]


def own(code: Path) -> Interpreter:
    return Interpreter(Path(sys.executable), (code, ROOT))


def peers(code: Path) -> Interpreter:
    """Makes the peers' venv if it is not there, or is of other requirements."""
    wanted, stamp = REQUIREMENTS.read_text(), PEERS / STAMP
    if not stamp.exists() or stamp.read_text() != wanted:
        click.echo("installing the peers …", err=True)
        _make(PEERS, "--requirement", str(REQUIREMENTS))
        stamp.write_text(wanted)
    return Interpreter(_python(PEERS), (code,))


@contextmanager
def baseline(code: Path, revision: str, folder: Path) -> Iterator[Interpreter]:
    """Yields the interpreter of a venv with mqueue as it was at `revision`."""
    tree, place = folder / "tree", folder / "venv"
    _git("worktree", "add", "--detach", str(tree), revision)
    try:
        click.echo(f"installing mqueue {revision} …", err=True)
        _make(place, f"{tree}[broker,embedded]")
        yield Interpreter(_python(place), (code,))
    finally:
        _git("worktree", "remove", "--force", str(tree))


def code_in(folder: Path) -> Path:
    """Returns a folder where `benchmarks` can be imported from and nothing else, so that a venv's mqueue is its own."""
    code = folder / LINK
    code.mkdir(exist_ok=True)
    (code / "benchmarks").symlink_to(ROOT / "benchmarks")
    return code


def revision_of(name: str) -> str:
    """Returns the short hash of a revision, with a `+` where the work tree has changes that no commit has."""
    short = _git("rev-parse", "--short", f"{name}^{{commit}}")
    return f"{short}+" if name == "HEAD" and _git("status", "--porcelain", "--untracked-files=no") else short


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _make(place: Path, *what: str) -> None:
    venv.create(place, with_pip=True, clear=True)
    command = [str(_python(place)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"pip install {' '.join(what)}: {done.stderr.strip()[-2000:]}")


def _python(place: Path) -> Path:
    return place / "bin" / "python"
