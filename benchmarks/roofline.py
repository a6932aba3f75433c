"""The roofline plot of `kernels.py`: what rows reach of what arithmetic and memory allow. Needs matplotlib."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from figures import GROUPS, Figures, Record


def plot(records: Sequence[Record], path: Path) -> None:
    """One thread: operations a second over operations a byte, graphc filled, the best peer hollow."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [Figures(r) for r in records if r["threads"] == 1 and r["flops"] and r["group"] != "symbolic"]
    if not rows:
        return
    peak = statistics.median(p for row in rows for p in row.record["fma_peak"]) / 1e9
    copy = statistics.median(c for row in rows for c in row.record["copy_bandwidth"]) / 1e9
    figure, axes = plt.subplots(figsize=(9, 6))
    intensities = [row.record["flops"] / row.record["moved"] for row in rows]
    low, high = min(intensities) / 2, max(intensities) * 2
    axes.plot([low, peak / copy, high], [low * copy, peak, peak], color="black", label="FMA loop, copy")
    for number, group in enumerate(GROUPS):
        mine = [(row, x) for row, x in zip(rows, intensities) if row.group == group]
        if mine:
            xs, colour = [x for _, x in mine], f"C{number}"
            axes.scatter(
                xs, [row.record["flops"] / row.ours / 1e9 for row, _ in mine], color=colour, label=group, zorder=3
            )
            best = [statistics.median(row.seconds[row.best]) if row.best else float("nan") for row, _ in mine]
            theirs = [row.record["flops"] / s / 1e9 for (row, _), s in zip(mine, best)]
            axes.scatter(xs, theirs, facecolors="none", edgecolors=colour, s=60)
    axes.set(xscale="log", yscale="log", xlabel="floating-point operations a byte", ylabel="GFLOP/s, one thread")
    axes.set_title("graphc (filled) and the best peer (hollow)")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
