"""Programs to read and to run, each by one command: `python -m examples.mailing`, say."""
