"""The task makes one thumbnail of one image."""

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mqueue import MemoryLimit, MQueue, Retry, TimeLimit

TOPIC = "thumbnails"
SIDE = 128
app = MQueue()
lasting = (FileNotFoundError, UnidentifiedImageError, TimeLimit, MemoryLimit)  # another run would end in the same way


@app.task(topic=TOPIC, executor="process", time_limit=4, memory_limit_mb=256, retry=Retry(max=2, base=0.2, never=lasting), result=True)
def thumbnail(source: str, target: str) -> tuple[int, int]:
    """Returns the thumbnail's size. The file is written beside its place and then moved there, so that a killed process
    leaves no half of it, and a second run does no harm.
    """
    with Image.open(source) as image:
        image.thumbnail((SIDE, SIDE))
        draft = Path(f"{target}.part")
        image.convert("RGB").save(draft, "JPEG")
        size = image.size
    draft.replace(target)
    return size
