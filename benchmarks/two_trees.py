"""The time of rows of `kernels.py` with two trees of graphc in turns: what a change of the code is worth.

    git worktree add ../before HEAD~1
    python benchmarks/two_trees.py ../before --only 128x128x128             # rows whose name has this in it
    python benchmarks/two_trees.py ../before --sizes 100x64x17 512x3000x512 # products of other sizes

Each tree has a process of its own, and they take turns on one core, so the clock of the machine changes for both. The
rows are those of this tree, called from Python on one thread; the ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
LEAST = 3e-3  # seconds of calls that are timed together
WARM = 2  # rounds that do not count


class Tree:
    """A process with the graphc of one tree, which makes one row after the other."""

    def __init__(self, folder: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(folder.resolve()), "GRAPHC_CACHE": "0"}
        command = [sys.executable, __file__, "--serve", str(folder.resolve())]
        self.process = subprocess.Popen(
            command, env=environment, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, line: str) -> float:
        """The answer, a number, to a line."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a process with one of the trees ended; what it said is above")
        return float(answer)


def serve(folder: str, sizes: list[str]) -> None:
    """Makes the row of each number that comes in, and times it for each empty line."""
    from every_row import rows
    from measuring import timed
    from peers import Peers

    import graphc

    assert Path(graphc.__file__).is_relative_to(folder), f"{graphc.__file__} is not of {folder}"
    every, peers = rows(sizes), Peers(1, [])
    for line in sys.stdin:
        if line.strip():
            ours = every[int(line)].build(peers)[0]
            once = min(timed(ours, 1, time.process_time) for _ in range(3))
            calls = max(1, min(1000, int(LEAST / max(once, 1e-7))))
            print(once, flush=True)
        else:
            print(timed(ours, calls, time.process_time), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, nargs="?", help="the folder of the other tree")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--sizes", nargs="+", default=[], metavar="MxKxN", help="products of these sizes instead")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, os.environ.get("TWO_TREES_SIZES", "").split())
    if options.before is None:
        parser.error("which tree is it to be compared with?")
    from every_row import rows

    os.environ["TWO_TREES_SIZES"] = " ".join(options.sizes)
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    trees = [Tree(options.before), Tree(HERE)]
    print("| kernel (float32) | before, us | now, us | before / now |\n|---|---|---|---|")
    for number, row in enumerate(rows(options.sizes)):
        if options.only not in row.name:
            continue
        for tree in trees:
            tree.ask(str(number))
        found = [(trees[0].ask(""), trees[1].ask("")) for _ in range(options.rounds + WARM)][WARM:]
        before, now = (1e6 * statistics.median(side) for side in zip(*found))
        ratio = statistics.median(a / b for a, b in found)
        print(f"| {row.name} | {before:.1f} | {now:.1f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
