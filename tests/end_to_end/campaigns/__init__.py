"""The short form of each campaign; the long ones are `tests/campaigns`."""
