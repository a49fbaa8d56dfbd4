"""The whole broker over HTTP: real processes, real stores, real kills."""
