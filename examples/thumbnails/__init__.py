"""Thumbnails in a pool of processes, with limits of time and memory. `python -m examples.thumbnails` runs it."""
