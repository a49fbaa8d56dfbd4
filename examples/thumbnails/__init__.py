"""A pool of processes makes thumbnails, with limits of time and memory. `python -m examples.thumbnails` runs it."""
