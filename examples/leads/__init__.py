"""Lead enrichment shows an API with a rate limit, batches, priorities, idempotency. `python -m
examples.leads` runs it.
"""
