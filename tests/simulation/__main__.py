"""python -m tests.simulation: see the package."""

import argparse
import os
import signal
import sys
import time
import traceback
from collections import Counter

from .mutations import MUTATIONS
from .stage import Stage
from .world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=sys.modules[__package__].__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--trace", action="store_true", help="tell the story")
    parser.add_argument("--keep-going", action="store_true", help="after a failure")
    parser.add_argument("--against", default="", metavar="REV", help="compare each call with the scripts of that revision")
    parser.add_argument("--mutations", nargs="?", const="", help="take rules away, those whose name has this in it: each must be noticed")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of names
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the servers stay behind
    if options.mutations is not None:
        return _mutate(options.mutations)
    seeds = [options.seed] if options.seed is not None else list(range(options.first, options.first + options.seeds))
    counts: Counter[str] = Counter()
    failed: list[int] = []
    began = time.monotonic()
    virtual, runs = 0.0, 0
    with Stage(options.against) as stage:
        for seed in seeds:
            world = stage.world(seed, trace=print if options.trace else None)
            try:
                world.run()
            except KeyboardInterrupt:
                break
            except Exception:
                failed.append(seed)
                _tell(world, traced=options.trace)
                if not options.keep_going:
                    break
            counts += world.counts
            runs += 1
            virtual += world.loop.time()
        if stage.redis.shadow is not None:
            counts["calls compared"] = stage.redis.shadow.steps
    for name, count in sorted(counts.items()):
        print(f"{count:9,} {name}")
    seconds = time.monotonic() - began
    print(f"{runs} seeds in {seconds:.1f} s; {virtual / 3600:.1f} hours simulated; failed: {failed or 'none'}")
    return bool(failed)


def _mutate(part: str) -> int:
    missed = 0
    with Stage() as stage:
        for mutation in MUTATIONS:
            if part in mutation.name:
                seed, what = stage.notices(mutation)
                missed += seed is None
                print(f"{mutation.name}: {f'seed {seed}: {what}' if seed is not None else 'NOT NOTICED'}", flush=True)
    return bool(missed)


def _tell(world: World, traced: bool) -> None:
    if not traced:
        print(*world.story, sep="\n")
    traceback.print_exc()
    print(f"--- seed {world.seed} failed: python -m tests.simulation --seed {world.seed} --trace", flush=True)


if __name__ == "__main__":
    sys.exit(main())
