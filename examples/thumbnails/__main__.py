"""The program makes thumbnails of 24 pictures, and fails at three bad ones: these fail alone, and say why."""

# ruff: noqa: T201

import sys
import tempfile
import warnings
from pathlib import Path

from examples.stage import first_line, stage
from examples.thumbnails.pictures import paint
from examples.thumbnails.tasks import TOPIC, app, thumbnail

PICTURES = 24
EXPECTED = {"MemoryLimit", "TimeLimit", "UnidentifiedImageError"}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="thumbnails-") as place, stage("examples.thumbnails.tasks", concurrency=4) as scene:
        pictures, made = Path(place) / "pictures", Path(place) / "thumbnails"
        pictures.mkdir()
        made.mkdir()
        warnings.simplefilter("ignore")  # Pillow's, of the huge one
        sources = paint(pictures, PICTURES)
        handles = app.enqueue_many(thumbnail.message(str(source), str(made / f"{source.stem}.jpg")) for source in sources)
        print(f"{len(handles)} pictures are enqueued, of which one is none, one is too large and one never ends.", flush=True)

        def dead() -> dict[int, str]:
            return {letter.id: first_line(letter) for letter in scene.client.dead_letters(TOPIC)}

        ended = scene.until(lambda: len(list(made.glob("*.jpg"))) + len(dead()) >= len(sources), TOPIC)
        failed = dead()
        sizes = [handle.result(timeout=10) for handle in handles if handle.id not in failed]
        count = len(list(made.glob("*.jpg")))
    print(f"thumbnails     {count:>4}   from {min(sizes)} to {max(sizes)}\ndead letters   {len(failed):>4}")
    for handle, source in zip(handles, sources, strict=True):
        if handle.id in failed:
            print(f"  {source.name}: {failed[handle.id]}")
    told = {name for name in EXPECTED for error in failed.values() if name in error}
    return 0 if ended and count == PICTURES and told == EXPECTED else 1


if __name__ == "__main__":
    sys.exit(main())
