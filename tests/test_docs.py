"""The documentation names what there is: files, options, passes; and every module has its place in a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphc.passes.pipeline import PASSES

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")]
PAGES += [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "design").glob("*.md"))]
FOLDERS = ("graphc", "passes", "runtime", "benchmarks", "examples", "tests")
SCRIPTS = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
MANY = ("ops", "nn", "optim", "train")  # folders of which docs/reference has a page for each function
NAMES = {path.name for path in SCRIPTS}


def quoted(page: Path) -> list[str]:
    """Everything between backticks."""
    return re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_options_exist(page: Path) -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    texts = quoted(page)
    files = {t for t in texts if re.fullmatch(r"[\w./-]+\.(py|md|json|png|toml|options)", t)}
    near = (ROOT, page.parent, *(ROOT / name for name in ("graphc", "runtime", "benchmarks/results")))
    missing = {f for f in files if f not in NAMES and not any((folder / f).exists() for folder in near)}
    options = {o for t in texts for o in re.findall(r"(?<![\w-])--[a-z][\w-]*", t)}
    unknown = {o for o in options if f'"{o}"' not in code}
    assert not missing and not unknown


def test_every_pass_is_in_the_table_in_order() -> None:
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/passes.md").read_text(encoding="utf-8"), re.M)
    assert table == list(dict.fromkeys(each.name for each in PASSES))


def test_every_module_has_its_place() -> None:
    """In a table or a sentence of some page."""
    texts = [text for page in PAGES for text in quoted(page)]
    named = {word for text in texts for word in re.findall(r"\w+\.py", text)} | {f"{each.name}.py" for each in PASSES}
    own = [path for path in SCRIPTS if path.relative_to(ROOT).parts[0] not in ("tests", "examples")]
    own = [path for path in own if path.parent.name not in MANY and not path.name.startswith("__")]
    lost = [str(path.relative_to(ROOT)) for path in own if path.name not in named]
    assert not lost, "no page of docs/ says what these are"
