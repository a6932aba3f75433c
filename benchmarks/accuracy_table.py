"""What `accuracy.py --store` measured: rows in accuracy.json beside this file, and the table of them in docs/maths.md.

A row has function, dtype, inputs (in words), error in ULP, where, and nanoseconds an element by library. A test
compares table and rows. Enter at `store`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROWS = Path(__file__).with_name("accuracy.json")
PAGE = Path(__file__).parent.parent / "docs" / "maths.md"
LIBRARIES = ("graphc", "NumPy", "PyTorch")
HEAD = f"| function | dtype | inputs | max ULP | at | {' | '.join(f'{name} ns' for name in LIBRARIES)} |"

Row = dict[str, Any]


def load() -> list[Row]:
    """All rows that were stored, in the order of the table."""
    rows: list[Row] = json.loads(ROWS.read_text(encoding="utf-8"))
    return rows


def store(row: Row) -> None:
    """Put `row` in place of the one with its function and dtype, or behind all, and write the table anew."""
    rows = load()
    places = [i for i, old in enumerate(rows) if (old["function"], old["dtype"]) == (row["function"], row["dtype"])]
    if places:
        rows[places[0]] = row
    else:
        rows.append(row)
    ROWS.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")


def line(row: Row) -> str:
    """The row as a line of the table."""
    cells = [row["function"], row["dtype"], row["inputs"], f"{row['error']:.3f}", ", ".join(map(repr, row["at"]))]
    cells += [f"{row['ns'][name]:.2f}" if name in row["ns"] else "" for name in LIBRARIES]
    return f"| {' | '.join(cells)} |"


def with_table(page: str, rows: list[Row]) -> str:
    """The page with the lines below the head of its table replaced."""
    table = "\n".join([HEAD, "|---" * (5 + len(LIBRARIES)) + "|", *map(line, rows)])
    return re.sub(rf"^{re.escape(HEAD)}\n(\|.*\n)+", lambda _: table + "\n", page, count=1, flags=re.M)
