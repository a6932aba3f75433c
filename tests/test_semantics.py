"""What IEEE 754 and NumPy fix, to the bit, at every optimisation level; and that docs/semantics.md names its tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_claim_of_the_document_names_a_test_that_exists() -> None:
    text = (ROOT / "docs/semantics.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    written = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert len(named) > 8 and not [name for name in named if f"def {name}(" not in written]
