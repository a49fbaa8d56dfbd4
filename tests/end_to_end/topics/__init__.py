"""Brokers, stores, disks and clocks that fail, one way a test."""
