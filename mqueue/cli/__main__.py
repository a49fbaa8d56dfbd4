"""`python -m mqueue.cli`: the same as `mqueue`."""

from mqueue.cli.main import main

main()
