"""The reference manual: what its pages say and show is true. (tests/test_project.py sees that they are up to date.)"""

from __future__ import annotations

import doctest
import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc import cli, interpret, reference, reference_facts
from graphc.build import Tensor
from graphc.errors import ArgumentError
from graphc.graph import Op
from graphc.ops.lowering import Elementwise, Reduction, Scan
from graphc.ops.registry import OPS, register
from graphc.types import float64


class Unheard:
    """A lowering kind of which the registry knows nothing."""


@pytest.mark.parametrize(
    ("op", "changed", "message"),
    [
        ("add", {"formula": ""}, "has no formula: Op(..., formula='x + y')"),
        ("sum", {"example": ""}, "has no example: Op(..., example='graphc.incomplete(...)')"),
        ("sum", {"lowering": Unheard()}, "says nothing of NaN, and its kind Unheard has no sentence"),
    ],
)
def test_a_missing_field_of_the_page_fails_at_import(op: str, changed: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=f"op incomplete {re.escape(message)}"):
        register(replace(OPS[op], name="incomplete", **changed))  # type: ignore[arg-type]
    assert "incomplete" not in OPS


@pytest.mark.parametrize("op", [op for op in OPS.values() if isinstance(op.lowering, (Elementwise, Reduction, Scan))])
def test_what_is_said_of_nan_is_true(op: Op) -> None:
    """The sentence of the kind where the entry has none: a nan gives nan. One of its own: not always."""
    sample = next((s for s in op.samples() if float64 in s.dtypes and s.operands and s.dims == {}), None)
    if sample is None or all(o.dtype not in (None, float64) for o in sample.operands):
        return  # of integers or bools only
    beside = np.array([np.inf, 0.0, 1.0, -1.0, 2.5])
    arrays = sample.draw(float64, np.random.default_rng(0), smooth=True)
    arrays = [np.resize(beside, a.shape) if a.dtype == np.float64 else a for a in arrays]
    always = []
    for position, array in enumerate(arrays):
        if array.dtype == np.float64:
            given = [np.full_like(a, np.nan) if i == position else a for i, a in enumerate(arrays)]
            inputs, results = sample.build(op, float64)
            (found,) = interpret.evaluate([t.ref for t in results], dict(zip([t.ref for t in inputs], given)))
            always.append(found.dtype.kind == "f" and bool(np.isnan(found).all()))
    assert all(always) == (not op.nan)


# The pages

FOLDER = Path(__file__).parent.parent / "docs" / "reference"


def test_every_link_leads_somewhere() -> None:
    for path in FOLDER.iterdir():
        for target in re.findall(r"\]\(([^)]*)\)", path.read_text(encoding="utf-8")):
            assert (FOLDER / target).is_file(), f"{path.name} links to {target}"


def test_every_example_prints_what_its_page_shows() -> None:
    """As a doctest, which knows nothing of how the page was made."""
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    with np.printoptions(precision=5):
        for path in sorted(FOLDER.iterdir()):
            text = "".join(re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S))
            runner.run(parser.get_doctest(text, {}, path.name, str(path), 0))
    results = runner.summarize(verbose=False)
    assert results.failed == 0 and results.attempted > 2 * len(OPS)


def test_the_command_writes_the_pages_and_removes_old_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "manual"
    folder.mkdir()
    (folder / "gone.md").write_text("an op that is no more")
    assert cli.main(["docs", str(folder)]) == 0
    assert re.fullmatch(rf"\d+ pages in {re.escape(str(folder))}\n", capsys.readouterr().out)
    assert not (folder / "gone.md").exists() and "x^(1/2)" in (folder / "sqrt.md").read_text()
    assert "the bound that tests hold it to" in (folder / "exp.md").read_text()  # no maths.md beside the folder


def test_a_function_without_an_example_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def mean(x: Tensor) -> Tensor:
        """A mean."""
        return x

    monkeypatch.setattr(reference.ops, "mean", mean)
    with pytest.raises(ArgumentError, match=r"graphc.mean has no example: write \"`mean\(...\)` is ...\" into its"):
        reference.pages()


# What docstrings claim: "`f(1.0)` is 2.0."

CLAIM = re.compile(r"`([a-z_][a-z_.0-9]*\([^`]*\))` is ([-(\[\dTF][^`]*?)\.(?= |$)")


def claims() -> list[Any]:
    found = []
    for page, (_, function) in reference_facts.functions().items():
        text = (inspect.getdoc(function) or "").replace("\n", " ")
        for code, claim in CLAIM.findall(text):
            package = "graphc.random" if page.startswith("random.") else "graphc"
            found.append((reference_facts.qualified(code, package), claim))
    return [pytest.param(code, claim, id=code) for code, claim in found if code is not None]


@pytest.mark.parametrize(("code", "claim"), claims())
def test_what_a_docstring_claims_is_so(code: str, claim: str) -> None:
    _, value = reference_facts.run(code)
    arrays = value if isinstance(value, (list, tuple)) else [value]
    number = r"-?(?:inf|nan|True|False|\d+(?:\.\d+)?(?:e-?\d+)?)"
    wanted = [float({"True": "1", "False": "0"}.get(n, n)) for n in re.findall(number, claim)]
    found = np.concatenate([np.ravel(a).astype(np.float64) for a in arrays])
    np.testing.assert_allclose(found, wanted, rtol=1e-3 if "..." in claim else 1e-6)


def test_gradients_are_shown_in_algebra() -> None:
    pages = reference.pages()
    assert "  - x: `g * 0.5 / result`\n" in pages["sqrt.md"]
    assert "  - y: `-(g / y * result)`\n" in pages["divide.md"]
    assert "- **Gradient**: none: the result is boolean.\n" in pages["less.md"]
    assert "  - indices" not in pages["take_along_axis.md"] and "where(%" in pages["take_along_axis.md"]
