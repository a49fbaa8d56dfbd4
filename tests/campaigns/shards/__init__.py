"""Campaigns over several shards: what befalls one must not be felt at another.

away.py   the stores of one of two are stopped under load
"""
