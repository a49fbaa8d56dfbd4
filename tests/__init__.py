"""The tests, by what they need: `unit` this machine alone, `integration` real stores, `end_to_end` whole processes.

`conformance` runs the same tests on the broker in memory and on the real one, `simulation` runs the broker in virtual
time, `model` checks the designs, `tidy` the rules of the house. All of them wait by `waiting`.
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]  # of the repository
