"""Stores that answer and refuse, or have forgotten what they said."""
