"""The e-mail pipeline has fan-out, retries, dead letters, a periodic digest. `python -m examples.mailing` runs it."""
