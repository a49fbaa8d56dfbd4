"""This module paints a folder of pictures to work on, three of them bad."""

import os
from pathlib import Path

from PIL import Image

HUGE = 10_000  # pixels a side: 300 MB once it is decoded, 300 kB in its file


def paint(folder: Path, count: int) -> list[Path]:
    """Returns `count` good pictures, and before them one that never ends, one that is huge and one that is none."""
    good = [folder / f"picture{n:02d}.png" for n in range(count)]
    for n, path in enumerate(good):
        Image.radial_gradient("L").resize((640 + 16 * n, 480)).save(path)
    return [_endless(folder / "endless.png"), _huge(folder / "huge.png"), _broken(folder / "broken.png"), *good]


def _broken(path: Path) -> Path:
    path.write_bytes(b"not a picture")
    return path


def _huge(path: Path) -> Path:
    Image.new("RGB", (HUGE, HUGE)).save(path, compress_level=1)
    return path


def _endless(path: Path) -> Path:
    """It is a pipe that nobody writes into."""
    os.mkfifo(path)
    return path
