"""From the raw rounds of `kernels.py` to its table and its plot. Enter at `report`.

A record is what `measuring.Bench.measure` gives. Ratios are a peer's seconds over graphc's in the same round, so above
1 graphc is faster; a row passes if the upper end of the 90 % interval of their median reaches its target.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]
LIBRARIES = ("NumPy", "PyTorch", "JAX", "Numba")
OURS = ("graphc", "one thread", "native")  # contenders that are no peers
GROUPS: dict[str, tuple[str, float | None]] = {  # title, and the geometric mean that one thread must reach
    "matmul-small": ("Small matrix products (rows x inner x columns)", 1.15),
    "matmul-large": ("Large matrix products", 1.05),
    "matmul-other": ("Matrix products of other sizes", None),
    "vector": ("One row times a matrix", None),
    "batched": ("Batched matrix products", None),
    "convolution": ("Convolutions of 32 images", 1.4),
    "epilogue": ("Products with an epilogue", None),
    "rows": ("Row kernels", None),
    "elementwise": ("Elementwise kernels and reductions", None),
    "attention": ("Attention", None),
    "copies": ("Transposing copies", None),
    "symbolic": ("A symbolic number of rows (*) against known sizes", None),
}
ROUNDS = 15  # without so many that count, nothing is shown
THREADS_TARGET = 0.95  # of the ratio on several threads
GAIN = 1.7  # over our own one thread, where there is work for it and memory does not bound it
GAIN_WORK = 20e6
COPY_SHARE = 0.9  # of the copy's bandwidth: as good as the target where memory bounds a row


def interval(values: Iterable[float], confidence: float = 0.9) -> tuple[float, float]:
    """The interval of the median that order statistics give: no assumption on how the values are distributed."""
    ordered = sorted(values)
    count, rank, outside = len(ordered), 0, 0.0
    while rank < (count - 1) // 2:
        outside += math.comb(count, rank) * 0.5**count
        if 2 * outside > 1 - confidence:
            break
        rank += 1
    rank = max(rank - 1, 0)
    return ordered[rank], ordered[-1 - rank]


@dataclass(frozen=True)
class Spread:
    """A median with its interval."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(statistics.median(values), *interval(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


class Figures:
    """What follows from one record."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.name, self.group, self.threads = record["name"], record["group"], record["threads"]
        self.seconds: dict[str, list[float]] = record["seconds"]
        self.peers = [name for name in self.seconds if name not in OURS]
        self.ours = statistics.median(self.seconds["graphc"])
        self.best = min(self.peers, key=lambda p: statistics.median(self.seconds[p]), default=None)
        self.ratio = self.ratio_to(self.best) if self.best else None

    def ratio_to(self, contender: str) -> Spread:
        return Spread.of([b / a for a, b in zip(self.seconds["graphc"], self.seconds[contender], strict=True)])

    def best_of(self, library: str) -> str | None:
        """The fastest way of a library."""
        own = [p for p in self.peers if p.split(" ")[0] == library]
        return min(own, key=lambda p: statistics.median(self.seconds[p]), default=None)

    @property
    def fma_share(self) -> Spread | None:
        return self._share("graphc")

    @property
    def native_share(self) -> Spread | None:
        return self._share("native") if "native" in self.seconds else None

    def _share(self, contender: str) -> Spread | None:
        flops, peaks = self.record["flops"], self.record["fma_peak"]
        if not flops:
            return None
        return Spread.of([flops / s / peak for s, peak in zip(self.seconds[contender], peaks, strict=True)])

    @property
    def copy_share(self) -> Spread:
        moved, copies = self.record["moved"], self.record["copy_bandwidth"]
        return Spread.of([moved / s / copy for s, copy in zip(self.seconds["graphc"], copies, strict=True)])

    @property
    def memory_bound(self) -> bool:
        """Whether moving the operands at the copy's bandwidth takes longer than the arithmetic at its peak."""
        arithmetic = self.record["flops"] / statistics.median(self.record["fma_peak"])
        return (
            self.record["memory"]
            or self.record["moved"] / statistics.median(self.record["copy_bandwidth"]) > arithmetic
        )

    @property
    def gain(self) -> Spread | None:
        """Over our own one thread, of several."""
        return self.ratio_to("one thread") if "one thread" in self.seconds else None

    @property
    def target(self) -> float:
        target: float = self.record["target"]
        kept = self.threads == 1 or self.group == "symbolic" or target == 0.0  # 0: measured without a target
        return target if kept else THREADS_TARGET

    def misses(self) -> list[str]:
        """What the row does not reach, in words; nothing for a row that passes."""
        missed = []
        if len(self.seconds["graphc"]) < ROUNDS:
            missed.append(f"only {len(self.seconds['graphc'])} rounds, of at least {ROUNDS}")
        fast = self.ratio is None or self.ratio.high >= self.target
        if not fast and not (self.record["memory"] and self.copy_share.high >= COPY_SHARE):
            missed.append(f"ratio {self.ratio} to {self.best}, target {self.target}")
        native = self.native_share
        if self.threads == 1 and self.record["native"] and native and native.high < self.record["native"]:
            missed.append(f"native {native.median:.0%} of the peak, target {self.record['native']:.0%}")
        gain = self.gain
        if gain and self.record["flops"] > GAIN_WORK and not self.memory_bound and gain.high < GAIN:
            missed.append(f"gain {gain} over one thread, target {GAIN}")
        return missed


def table(records: Sequence[Record]) -> str:
    """The Markdown tables, a group after the other, with the rows that miss something named below each."""
    parts = []
    for threads in sorted({r["threads"] for r in records}):
        parts.append(f"## {'One thread' if threads == 1 else f'{threads} threads'}\n")
        for group, (title, mean) in GROUPS.items():
            rows = [Figures(r) for r in records if r["group"] == group and r["threads"] == threads]
            if rows:
                parts += [f"### {title}\n", _group(rows, threads), *_below(rows, threads, mean), ""]
    return "\n".join(parts)


def _group(rows: Sequence[Figures], threads: int) -> str:
    libraries = [lib for lib in LIBRARIES if any(row.best_of(lib) for row in rows)]
    heads = ["kernel (float32)", "graphc, us", "best peer", "ratio (90 %)", "target", *libraries, "FMA", "copy"]
    heads += ["native"] if threads == 1 else ["gain"]
    lines = [f"| {' | '.join([*heads, 'passes'])} |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        cells = [row.name, f"{1e6 * row.ours:.1f}", row.best or "", str(row.ratio or ""), f"{row.target:.2f}"]
        for library in libraries:
            way = row.best_of(library)
            slow = any(name.split(" ")[0] == library for name in row.record["hopeless"])
            cells.append(f"{row.ratio_to(way).median:.2f}" if way else "> 20" if slow else "")
        cells += [_percent(row.fma_share), _percent(row.copy_share)]
        cells.append(_percent(row.native_share) if threads == 1 else f"{row.gain.median:.2f}" if row.gain else "")
        lines.append(f"| {' | '.join([*cells, 'no' if row.misses() else 'yes'])} |")
    return "\n".join(lines)


def _percent(share: Spread | None) -> str:
    return f"{share.median:.0%}" if share else ""


def _below(rows: Sequence[Figures], threads: int, mean: float | None) -> list[str]:
    lines = [""]
    ratios = [row.ratio.median for row in rows if row.ratio]
    if ratios:
        goal = (
            f", target {mean}: {'reached' if geometric_mean(ratios) >= mean else 'missed'}"
            if mean and threads == 1
            else ""
        )
        lines.append(f"Geometric mean of the ratios {geometric_mean(ratios):.2f}{goal}.")
    dropped = sum(row.record["dropped"] for row in rows)
    if dropped:
        lines.append(f"Dropped, because two threads of the calibration gained less than 1.9: {dropped} rounds.")
    lines += [f"- {row.name}: {miss}" for row in rows for miss in row.misses()]
    return lines


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def compile_table(records: Sequence[Record]) -> str:
    """Compile times: `seconds` of each native function of a row, `slow` where more is allowed."""
    quick = [r["seconds"] for r in records if not r["slow"]]
    slow = [r["seconds"] for r in records if r["slow"]]
    lines = [
        "## Compile time without a cache\n",
        "| native functions of | median, ms | most, ms | target | passes |",
        "|---" * 5 + "|",
    ]
    for name, values, figure, limit in (
        ("all other rows", quick, statistics.median, "median under 20"),
        ("transcendental epilogues, transposed forms, attention", slow, max, "each at most 60"),
    ):
        if values:
            reached = figure(values) < 20e-3 if values is quick else figure(values) <= 60e-3
            cells = f"{1e3 * statistics.median(values):.1f} | {1e3 * max(values):.1f} | {limit}"
            lines.append(f"| {name} | {cells} | {'yes' if reached else 'no'} |")
    most = sorted(records, key=lambda r: -r["seconds"])[:5]
    lines += [
        "",
        *(f"- {r['name']}: {1e3 * r['seconds']:.1f} ms each, {r['functions']} native functions" for r in most),
    ]
    return "\n".join(lines) + "\n"


def summary(records: Sequence[Record]) -> str:
    """The geometric mean of the ratios to the fastest library, and the rows that miss, by group and threads."""
    counts = sorted({r["threads"] for r in records})
    heads = ["one thread" if threads == 1 else f"{threads} threads" for threads in counts]
    lines = ["## Geometric means, and rows that miss a target\n", f"| | {' | '.join(heads)} |"]
    lines.append("|---" * (len(heads) + 1) + "|")
    for group, (title, _) in GROUPS.items():
        cells = []
        for threads in counts:
            rows = [Figures(r) for r in records if r["group"] == group and r["threads"] == threads]
            ratios = [row.ratio.median for row in rows if row.ratio]
            missing = sum(bool(row.misses()) for row in rows)
            mean = f"{geometric_mean(ratios):.2f}" if ratios else ""
            cells.append(f"{mean}; {missing} of {len(rows)}" if rows else "")
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def load(folder: Path) -> list[Record]:
    """The records of a folder, in the order of the table as far as `position` tells."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda r: r["position"])


def report(folder: Path) -> tuple[str, bool]:
    """The report of a folder, and whether nothing is missed."""
    records = load(folder)
    rounds = [r for r in records if r["kind"] == "rounds"]
    compiled = [r for r in records if r["kind"] == "compile"]
    parts = ["# Kernels against the libraries\n"]
    for machine in sorted({r["machine"] for r in records}):
        parts.append(f"{machine}\n")
    for threads in sorted({r["threads"] for r in rounds}):
        peaks = [p for r in rounds if r["threads"] == threads for p in r["fma_peak"]]
        copies = [c for r in rounds if r["threads"] == threads for c in r["copy_bandwidth"]]
        parts.append(
            f"- {threads} thread{'s' * (threads > 1)}: FMA peak {statistics.median(peaks) / 1e9:.0f} GFLOP/s, "
            f"copy {statistics.median(copies) / 1e9:.1f} GB/s (medians of all rounds)"
        )
    text = "\n".join(parts) + "\n\n" + summary(rounds) + "\n" + table(rounds)
    if compiled:
        text += "\n" + compile_table(compiled)
    means = [
        geometric_mean(ratios) >= mean
        for group, (_, mean) in GROUPS.items()
        if mean and (ratios := [f.ratio.median for r in rounds if r["group"] == group and r["threads"] == 1
                                if (f := Figures(r)).ratio])
    ]  # fmt: skip
    return text, all(means) and not any(Figures(r).misses() for r in rounds)
