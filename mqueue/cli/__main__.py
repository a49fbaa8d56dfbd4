"""`python -m mqueue.cli` does the same as `mqueue`."""

from mqueue.cli.main import main

main()
