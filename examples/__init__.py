"""These programs are to be read and run, each by one command: `python -m examples.mailing`, for example."""
