"""The command line in its own process: a graph at every level, settings, errors."""

import subprocess
import sys
from pathlib import Path

import pytest

from graphc import text
from graphc.build import parameter, placeholder
from graphc.cli import main
from graphc.graph import Graph

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """y = x * w + 1 with an update of w, saved."""
    x, w = placeholder("x", ("n", 3)), parameter("w", [1.0, 2.0, 3.0])
    y = x.astype("float64") * w + 1.0
    graph = Graph((x.ref, w.ref), (y.ref, (w * 0.5).ref), (w.ref,), "affine")
    text.save(tmp_path / "affine.graph", graph)
    return tmp_path / "affine.graph"


def test_dump_prints_the_graph(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", str(saved)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("graph affine {\n  input %x: f32[n,3]") and "update %w = " in printed
    again = saved.with_suffix(".txt")
    again.write_text(printed, encoding="utf-8")
    assert main(["dump", str(again), "--level", "graph"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("level", "sign"),
    [
        ("optimized", "kernel("),
        ("program", "\n  parameter w: f64[3]\n"),
        ("loops", "def "),
        ("llvm", "define "),
        ("asm", "ret"),
    ],
)
def test_dump_prints_every_level(saved: Path, level: str, sign: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", str(saved), "--level", level]) == 0
    assert sign in capsys.readouterr().out


def test_info_shows_target_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    for part in ("numpy", "llvmlite", "target", "cache", "threads", "GRAPHC_DUMP", "GRAPHC_CACHE_DIR"):
        assert part in printed


def test_errors_are_one_message_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", str(tmp_path / "missing")]) == 1
    assert "missing" in capsys.readouterr().err
    broken = tmp_path / "broken.txt"
    broken.write_text("graph g {\n  return %9\n}\n", encoding="utf-8")
    assert main(["dump", str(broken), "--level", "asm"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("graphc: ") and "Traceback" not in error
    with pytest.raises(SystemExit) as stop:
        main(["dump", str(broken), "--level", "ptx"])
    assert stop.value.code == 2


def test_python_m_graphc(saved: Path) -> None:
    command = [sys.executable, "-m", "graphc", "dump", str(saved)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("graph affine {")
