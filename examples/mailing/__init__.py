"""An e-mail pipeline: fan-out, retries, dead letters, a periodic digest. `python -m examples.mailing` runs it."""
