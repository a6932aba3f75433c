"""What `benchmarks/kernels.py` makes of rounds: statistics, verdicts and tables of synthetic ones. Nothing is timed."""

from __future__ import annotations

import importlib
import json
import math
import random
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the folder import each other by their bare names."""
    monkeypatch.syspath_prepend(str(FOLDER))


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def record(**changes: Any) -> dict[str, Any]:
    """A row of 15 rounds: graphc takes 1 ms, NumPy 1.5, PyTorch 2 or 1.2, Numba far too long."""
    rounds = 15
    made: dict[str, Any] = {
        "name": "a row", "group": "rows", "target": 1.1, "flops": 0.0, "moved": 1e6, "memory": False, "native": None,
        "threads": 1, "calls": {}, "dropped": 0, "gains": [], "hopeless": {"Numba": 9.0}, "kind": "rounds",
        "position": 0, "machine": "a machine", "fma_peak": [1e11] * rounds, "copy_bandwidth": [1e10] * rounds,
        "seconds": {
            "graphc": [1e-3] * rounds, "NumPy": [1.5e-3] * rounds, "PyTorch": [2e-3] * rounds,
            "PyTorch channels_last": [1.2e-3] * rounds,
        },
    }  # fmt: skip
    return made | changes


def with_seconds(**changes: float) -> dict[str, Any]:
    row = record()
    return {**row["seconds"], **{name.replace("_", " "): [value] * 15 for name, value in changes.items()}}


@pytest.mark.parametrize(("count", "rank"), [(1, 0), (3, 0), (4, 0), (5, 0), (8, 1), (15, 3), (30, 10)])
def test_intervals_are_those_of_the_binomial(count: int, rank: int) -> None:
    """The narrowest pair of order statistics that holds the median with at least 90 %, where there is one."""
    values = list(range(count))
    random.Random(0).shuffle(values)
    assert load("figures").interval(values) == (rank, count - 1 - rank)

    def held(r: int) -> float:
        return 1 - 2 * sum(math.comb(count, k) for k in range(r + 1)) / 2**count

    assert rank == 0 or held(rank) >= 0.9 > held(rank + 1)


def test_the_peer_to_beat_is_the_fastest_way_of_any_library() -> None:
    row = load("figures").Figures(record())
    assert (row.best, row.best_of("PyTorch"), row.best_of("JAX")) == ("PyTorch channels_last", *row.peers[-1:], None)
    assert row.ratio.median == pytest.approx(1.2)
    assert row.misses() == []


def test_ratios_are_of_the_same_round() -> None:
    """A machine that is twice as slow in some rounds changes no ratio."""
    slow = [1.0 + n % 2 for n in range(15)]
    seconds = {"graphc": [1e-3 * s for s in slow], "NumPy": [1.3e-3 * s for s in slow]}
    ratio = load("figures").Figures(record(seconds=seconds)).ratio
    assert ratio.low == pytest.approx(1.3) and ratio.high == pytest.approx(1.3)


def test_the_upper_end_of_the_interval_decides() -> None:
    figures = load("figures")
    peer = [1e-3] * 11 + [1.2e-3] * 4  # the fourth of 15 from above
    assert not figures.Figures(record(seconds={"graphc": [1e-3] * 15, "NumPy": peer})).misses()
    peer = [1e-3] * 12 + [1.2e-3] * 3
    (miss,) = figures.Figures(record(seconds={"graphc": [1e-3] * 15, "NumPy": peer})).misses()
    assert miss == "ratio 1.00 (1.00-1.00) to NumPy, target 1.1"


def test_too_few_rounds_show_nothing() -> None:
    """As where other programs took a core: a wide interval would pass by chance."""
    row = record()
    few = {name: seconds[:14] for name, seconds in row["seconds"].items()}
    ends = {"fma_peak": row["fma_peak"][:14], "copy_bandwidth": row["copy_bandwidth"][:14]}
    assert load("figures").Figures(record(seconds=few, **ends)).misses() == ["only 14 rounds, of at least 15"]


def test_where_memory_bounds_the_bandwidth_of_a_copy_will_do() -> None:
    figures = load("figures")
    slow = {"graphc": [1e-3] * 15, "NumPy": [0.5e-3] * 15}
    near, far = 0.92e7, 0.88e7  # bytes in a millisecond, of 1e7
    assert not figures.Figures(record(seconds=slow, memory=True, moved=near)).misses()
    assert figures.Figures(record(seconds=slow, memory=True, moved=far)).misses()
    assert figures.Figures(record(seconds=slow, memory=False, moved=near)).misses()


def test_native_code_has_its_share_of_the_peak() -> None:
    figures = load("figures")
    seconds = with_seconds(native=0.5e-3)
    assert not figures.Figures(record(seconds=seconds, flops=4.1e7, native=0.8)).misses()
    (miss,) = figures.Figures(record(seconds=seconds, flops=3.9e7, native=0.8)).misses()
    assert miss == "native 78% of the peak, target 80%"


def test_two_threads_gain_where_there_is_work() -> None:
    figures = load("figures")
    for gain, flops, moved, missed in (
        (1.6e-3, 4e7, 1e6, True),
        (1.8e-3, 4e7, 1e6, False),
        (1.6e-3, 1e7, 1e5, False),  # too little work
        (1.6e-3, 4e7, 1e7, False),  # memory bounds it
    ):
        row = figures.Figures(record(seconds=with_seconds(one_thread=gain), threads=2, flops=flops, moved=moved))
        assert bool(row.misses()) == missed and row.target == 0.95
        assert "one thread" not in row.peers


def test_the_report_of_a_folder(tmp_path: Path) -> None:
    rows = [
        record(position=1, name="second"),
        record(position=0, name="first", group="matmul-small", target=1.0, flops=5e7, dropped=0),
        record(position=2, name="third", threads=2, dropped=3, seconds=with_seconds(graphc=2e-3, one_thread=3e-3)),
        {"kind": "compile", "position": 3, "name": "a", "seconds": 15e-3, "functions": 2, "slow": False, "machine": ""},
        {"kind": "compile", "position": 4, "name": "b", "seconds": 70e-3, "functions": 1, "slow": True, "machine": ""},
    ]  # fmt: skip
    for number, row in enumerate(rows):
        (tmp_path / f"{number}.json").write_text(json.dumps(row))
    text, good = load("figures").report(tmp_path)
    assert not good
    lines = text.splitlines()
    one, two = lines.index("## One thread"), lines.index("## 2 threads")
    first = "| first | 1000.0 | PyTorch channels_last | 1.20 (1.20-1.20) | 1.00 | 1.50 | 1.20 | 50% | 10% |  | yes |"
    assert one < lines.index(first) < two
    assert "Geometric mean of the ratios 1.20, target 1.15: reached." in lines
    assert "| | one thread | 2 threads |" in lines[:one]
    assert "| Row kernels | 1.20; 0 of 1 | 0.60; 1 of 1 |" in lines[:one]
    assert "Dropped, because two threads of the calibration gained less than 1.9: 3 rounds." in lines[two:]
    assert "- third: ratio 0.60 (0.60-0.60) to PyTorch channels_last, target 0.95" in lines[two:]
    assert "- 1 thread: FMA peak 100 GFLOP/s, copy 10.0 GB/s (medians of all rounds)" in lines
    assert "| all other rows | 15.0 | 15.0 | median under 20 | yes |" in lines
    assert "| transcendental epilogues, transposed forms, attention | 70.0 | 70.0 | each at most 60 | no |" in lines
    widths = {line.count("|") for line in lines[lines.index(first) - 2 : lines.index(first) + 1]}
    assert len(widths) == 1


def test_the_rows_are_those_of_the_goals() -> None:
    rows = load("every_row").rows()
    keys = [(row.group, row.name) for row in rows]
    assert len(set(keys)) == len(keys)
    groups = load("figures").GROUPS
    counts = {group: sum(row.group == group for row in rows) for group in groups}
    assert counts == {
        "matmul-small": 24, "matmul-large": 15, "vector": 3, "batched": 1, "convolution": 36, "epilogue": 2, "rows": 5,
        "elementwise": 6, "attention": 4, "copies": 3, "symbolic": counts["symbolic"],
        "matmul-other": 0,
    }  # fmt: skip
    assert counts["symbolic"] > 20 and all(row.group in groups for row in rows)


def test_rows_of_other_sizes_are_products_in_all_forms() -> None:
    rows = load("every_row").rows(["100x64x17", "1x2x3"])
    sizes, forms = ("100x64x17", "1x2x3"), ("NN", "NT", "TN")
    assert [row.name for row in rows] == [f"{size} {form}" for size in sizes for form in forms]
    assert all(row.group == "matmul-other" for row in rows)
    with pytest.raises(SystemExit, match="100x64 is no size of a product: write rows x steps x columns"):
        load("every_row").rows(["100x64"])


KERNELS: list[tuple[str, list[tuple[int, ...]], Any, Any]] = [
    ("softmax", [(5, 7)], lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), (5, 7)),
    ("softmax_gradient", [(5, 7), (5, 7)], lambda g, y: (g - (g * y).sum(-1, keepdims=True)) * y, (5, 7)),
    ("total", [(9000,)], lambda x: x.sum(), (1,)),
    ("columns", [(70, 3)], lambda x: x.sum(0), (3,)),
]


@pytest.mark.parametrize(
    ("name", "shapes", "formula", "result"), KERNELS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_the_loops_for_numba_are_right_as_python(name: str, shapes: Any, formula: Any, result: Any) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    run = getattr(load("numba_kernels"), name)(SimpleNamespace(prange=range))
    np.testing.assert_allclose(run(*arrays, np.zeros(result, np.float32)), formula(*arrays), rtol=2e-3, atol=1e-5)
