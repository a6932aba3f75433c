"""graphc's kernels against OpenBLAS, MKL, oneDNN, JAX and Numba: interleaved rounds in one process, results compared.

    python benchmarks/kernels.py --list                                # the rows
    python benchmarks/kernels.py --group rows --only softmax           # some rows on one thread, as a table
    python benchmarks/kernels.py --sizes 100x64x17 512x3000x512        # products of other sizes
    python benchmarks/kernels.py --threads 2 --results DIR             # all rows, raw rounds kept in DIR
    python benchmarks/kernels.py --results DIR --missing               # the rows that DIR lacks
    python benchmarks/kernels.py --group compile --results DIR         # compile times
    python benchmarks/kernels.py --report DIR                          # DIR/table.md and DIR/roofline.png

A run uses as many cores as threads, so that every library has as many. DIR holds a file of raw numbers for each row and
number of threads; rows are measured in any order and by any number of runs, a new run of a row replaces the old one.
The exit status is 1 where something is missed. How it is measured: `measuring.py`; what the figures mean: `figures.py`;
the rows: `every_row.py`, `rows_*.py`; the libraries: `peers.py`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", nargs="+", default=[], help="groups of rows; compile: compile times")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--sizes", nargs="+", default=[], metavar="MxKxN", help="products of these sizes instead")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", nargs="+", default=["NumPy", "PyTorch", "JAX", "Numba"])
    parser.add_argument("--results", type=Path, metavar="DIR", help="keep the raw rounds there")
    parser.add_argument("--missing", action="store_true", help="only rows that --results does not hold yet")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write the table and the plot of what DIR holds")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    return parser.parse_args()


def confine(threads: int) -> None:
    """As many cores for this process as threads, and no more threads in OpenBLAS; before any library is imported."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < threads:
            raise SystemExit(f"{threads} threads need as many cores, and this process may use {len(cores)}")
        os.sched_setaffinity(0, cores[-threads:])


def recycle() -> None:
    """Memory that glibc's malloc is given back stays with the process, as graphc's results do.

    By default each array of more than 32 MiB is fresh pages, unless the heap has room for it: PyTorch took 29 ms or 11
    for one convolution on two threads, from run to run.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def main() -> int:
    chosen = options()
    if chosen.report:
        return write_report(chosen.report)
    confine(chosen.threads)
    recycle()
    import json
    import re

    from compiling import compile_record
    from figures import Figures, compile_table, table
    from measuring import Bench
    from peers import Peers

    compiling = "compile" in chosen.group
    wanted = wanted_rows(chosen)
    if chosen.list:
        print("\n".join(f"{row.group:14}{row.name}" for _, row in wanted))
        return 0
    bench, records = None if compiling else Bench(chosen.threads, chosen.rounds), []
    peers = Peers(chosen.threads, [] if compiling else chosen.peers)
    for position, row in wanted:
        slug = re.sub(r"[^A-Za-z0-9]+", "-", row.name).strip("-")
        kind = "compile" if compiling else f"{chosen.threads}t"
        path = chosen.results / f"{row.group}.{slug}.{kind}.json" if chosen.results else None
        if chosen.missing and path and path.exists():
            continue
        record = compile_record(row) if bench is None else bench.measure(row, row.build(peers))
        record |= {"kind": "compile" if compiling else "rounds", "position": position, "machine": machine()}
        records.append(record)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record), encoding="utf-8")
        print(progress(record), file=sys.stderr, flush=True)
    if compiling:
        print(compile_table(records))
        return 0
    print(table(records))
    return 1 if any(Figures(record).misses() for record in records) else 0


def wanted_rows(chosen: argparse.Namespace) -> list[tuple[int, Any]]:
    """The rows that were asked for, each with its place among all."""
    from every_row import rows
    from figures import GROUPS

    if chosen.sizes and chosen.results:
        raise SystemExit("--results keeps the rows of the table, not those of other --sizes")
    unknown = set(chosen.group) - {*GROUPS, "compile"}
    if unknown:
        raise SystemExit(f"no group {', '.join(sorted(unknown))}; there are {', '.join([*GROUPS, 'compile'])}")
    groups = [] if "compile" in chosen.group else chosen.group
    return [
        (position, row)
        for position, row in enumerate(rows(chosen.sizes))
        if chosen.only in row.name and (not groups or row.group in groups)
    ]


def progress(record: dict[str, object]) -> str:
    """A line for a row that is done."""
    from figures import Figures

    if record["kind"] == "compile":
        parts: Any = record["parts"]
        told = ", ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in parts.items())
        return f"{record['name']}: {1e3 * float(str(record['seconds'])):.1f} ms a native function; of all: {told}"
    row = Figures(record)
    native = f", native {row.native_share.median:.0%}" if row.native_share else ""
    share = f", {row.fma_share.median:.0%} of the peak" if row.fma_share else ""
    return f"{row.name}: {1e6 * row.ours:.1f} us, {row.ratio} to {row.best}{share}{native}"


def machine() -> str:
    """The processor and the libraries' versions."""
    from peers import versions

    processor = "unknown processor"
    path = Path("/proc/cpuinfo")
    if path.exists():
        names = [line.split(":")[1].strip() for line in path.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{processor}, {os.cpu_count()} cores; {libraries}"


def write_report(folder: Path) -> int:
    from figures import load, report
    from roofline import plot

    text, good = report(folder)
    (folder / "table.md").write_text(text, encoding="utf-8")
    plot([r for r in load(folder) if r["kind"] == "rounds"], folder / "roofline.png")
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
