"""The shape of the project: import layers, sizes, docstrings, the wheel, the README."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from graphc import reference
from graphc.runtime.host import host_target

ROOT = Path(__file__).resolve().parent.parent

# Each layer may import from itself and from those before it; __init__ and __main__ stand above all.
LAYERS = [
    {"elsewhere", "errors", "files", "settings", "observe", "target"},
    {"size_mistakes", "sizes", "size_values", "size_reader", "bounds", "size_facts", "types", "conversion"},
    {"graph", "extents"},
    {"nest", "state", "declared", "foreign", "methods", "build"},
    {"ops"},
    {"interpret", "verify", "text", "text_reader", "picture", "stabilize"}
    | {"autodiff_walk", "autodiff", "batching", "jacobians", "transforms", "marking"},
    {"passes"},
    {"loops"},
    {"llvm"},
    {"runtime"},
    {"freeze", "compile", "tracing"},
    {"random", "linalg", "inquiry"},
    {"nn", "optim", "train"},
    {"reference_facts", "reference"},
    {"cli"},
    {"__init__", "__main__"},
]
# (module, imported part): the one upward import of each is inside a function or for types only.
ALLOWED = {("graphc.state", "build"), ("graphc.ops.marks", "autodiff")}


def sources() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for folder, package in (
        (ROOT / "graphc", "graphc"),
        (ROOT / "passes", "graphc.passes"),
        (ROOT / "runtime", "graphc.runtime"),
    ):
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder)
            if folder.name == "graphc" and relative.parts[0] in ("passes", "runtime"):
                continue  # the links
            found[".".join((package, *relative.with_suffix("").parts))] = path
    return found


def imports_of(path: Path) -> set[str]:
    """The dotted names of everything that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer_of(part: str) -> int:
    return next((number for number, layer in enumerate(LAYERS) if part in layer), -1)


def broken_imports(module: str, imported: set[str]) -> list[str]:
    """What `module` must not import, of `imported`."""
    part = module.split(".")[1]
    broken = []
    for name in imported:
        parts = name.split(".")
        if parts[0] in ("passes", "runtime"):
            broken.append(f"{module} imports {name}: it is graphc.{name}")
        elif parts[0] == "llvmlite" and part not in ("llvm", "runtime"):
            broken.append(f"{module} imports llvmlite")
        elif parts[0] == "graphc" and len(parts) > 1 and (module, parts[1]) not in ALLOWED:
            other = layer_of(parts[1])
            if other < 0 and part not in ("__init__", "__main__", "nn", "optim", "train", "cli"):
                broken.append(f"{module} imports {name}, which belongs to no layer")
            elif other > layer_of(part):
                broken.append(f"{module} imports {name} of a higher layer")
    return broken


def test_every_module_keeps_to_its_layer() -> None:
    broken = [line for module, path in sources().items() for line in broken_imports(module, imports_of(path))]
    unplaced = [module for module in sources() if layer_of(module.split(".")[1]) < 0]
    assert not broken and not unplaced, "\n".join(broken + unplaced)


def test_the_layer_check_sees_what_it_should() -> None:
    assert broken_imports("graphc.types", {"graphc.graph.Node"}) == [
        "graphc.types imports graphc.graph.Node of a higher layer"
    ]
    assert broken_imports("graphc.passes.fuse", {"graphc.llvm.emit"})
    assert broken_imports("graphc.loops.lower", {"llvmlite.binding"}) == ["graphc.loops.lower imports llvmlite"]
    assert broken_imports("graphc.compile", {"passes.pipeline"})
    assert not broken_imports("graphc.nn.layers", {"graphc.nn.module.Module", "graphc.ops", "numpy"})


def test_networkx_is_imported_only_where_a_function_needs_it() -> None:
    at_the_top = [
        module
        for module, path in sources().items()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "networkx" in ast.unparse(node)
    ]
    assert not at_the_top


def test_the_reference_manual_is_the_one_that_the_code_makes() -> None:
    folder = ROOT / "docs" / "reference"
    made = reference.pages(ROOT / "docs" / "maths.md")
    kept = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    stale = sorted(name for name in {*made, *kept} if made.get(name) != kept.get(name))
    assert not stale, f"run `python -m graphc docs docs/reference`, commit; it changes {', '.join(stale)}"


def test_dependencies_are_the_three() -> None:
    allowed = {"graphc", "numpy", "llvmlite", "networkx", "rich"} | set(sys.stdlib_module_names)
    foreign = {name.split(".")[0] for path in sources().values() for name in imports_of(path)} - allowed
    assert not foreign
    rich = [module for module, path in sources().items() if any(n.startswith("rich") for n in imports_of(path))]
    assert rich == ["graphc.train.progress"]


def test_files_are_short_and_say_what_they_are() -> None:
    python = list(sources().values())
    for folder in ("tests", "examples", "benchmarks"):
        python += (ROOT / folder).glob("*.py")
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in python}
    long = {name: count for name, text in texts.items() if (count := len(text.splitlines())) > 400}
    silent = [name for name, text in texts.items() if not ast.get_docstring(ast.parse(text))]
    assert not long and not silent, f"over 400 lines: {long}; no docstring: {silent}"


def test_no_module_is_named_after_a_function_of_its_package() -> None:
    clashes = []
    for name, path in sources().items():
        if not name.endswith(".__init__"):
            continue
        modules = {p.stem for p in path.parent.glob("*.py")} | {p.name for p in path.parent.iterdir() if p.is_dir()}
        exported = {
            alias.asname or alias.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ImportFrom) and node.module != name.removesuffix(".__init__")
            for alias in node.names
        }
        clashes += [f"{name}: {clash}" for clash in sorted(modules & exported)]
    assert not clashes


def test_the_bare_folder_names_do_not_import() -> None:
    for name in ("passes", "runtime"):
        done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode and f"import graphc.{name}" in done.stderr


BUILD = """
import sys, setuptools.build_meta as backend
print(getattr(backend, f"build_{sys.argv[1]}")(sys.argv[2]))
"""


def build(kind: str, tree: Path, target: Path) -> Path:
    """The wheel or sdist of a tree, built without a network."""
    target.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-c", BUILD, kind, str(target)], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target / done.stdout.split()[-1]


def test_the_wheel_holds_the_tree_and_so_does_that_of_the_sdist(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("graphc", "passes", "runtime"):
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tree)
    expected = {f"{module.replace('.', '/')}.py" for module in sources()} | {"graphc/py.typed"}
    expected |= {"graphc/runtime/ours.options", "graphc/runtime/default.options"}

    wheel = build("wheel", tree, tmp_path / "wheel")
    assert held(wheel) == expected

    sdist = build("sdist", tree, tmp_path / "sdist")
    shutil.unpack_archive(sdist, tmp_path / "unpacked", filter="data")
    unpacked = next((tmp_path / "unpacked").iterdir())
    assert held(build("wheel", unpacked, tmp_path / "again")) == expected


def held(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)


def test_the_readme_starts_with_the_two_commands() -> None:
    install = "python3 -m venv .venv && .venv/bin/python -m pip install -e '.[{}]' && .venv/bin/python {}\n"
    commands = [install.format("examples", "examples/train_digits.py"), install.format("test", "-m pytest")]
    assert blocks("sh")[:2] == commands


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = blocks("python")
    assert len(code.splitlines()) == 15
    script = tmp_path / "line.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, env=with_tree())
    assert done.returncode == 0, done.stderr
    first, *graph = done.stdout.splitlines()
    assert first == "loss 0.000000, slope 3.000, offset 0.500"
    assert graph[0].startswith("graph ") and any("matmul(%x, %w)" in line and "line.py:10" in line for line in graph)


def with_tree() -> dict[str, str]:
    """An environment in which the tree can be imported, installed or not."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GRAPHC_")}
    return kept | {"PYTHONPATH": str(ROOT)}


def printed(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a script of the project prints."""
    command = [sys.executable, script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=with_tree())


def test_the_levels_in_the_readme_are_what_the_example_prints() -> None:
    """Line by line, in order, but for numbers in names; below the graph only on the kind of machine that is shown."""
    (block,) = blocks("text")
    done = printed("examples/levels.py")
    assert done.returncode == 0, done.stderr
    real = dict(part.split("\n", 1) for part in done.stdout.split("--- ")[1:])
    for part in block.split("--- ")[1:]:
        level, text = part.split("\n", 1)
        if level != "graph" and host_target().vector_bytes != 64:
            continue
        lines = iter([re.sub(r"\d+", "0", line) for line in real[level].splitlines()])
        for line in text.splitlines():
            if line.strip() != "...":
                assert re.sub(r"\d+", "0", line) in lines, f"{level}: {line!r} is not in what examples/levels.py prints"


@pytest.mark.parametrize(("script", "rows"), [("compile_time", 3), ("call_overhead", 2)])
def test_benchmarks_print_their_table(script: str, rows: int) -> None:
    """Whether the goals are met depends on the machine; that the command measures does not."""
    done = printed(f"benchmarks/{script}.py", *(["--rounds", "1"] if script == "compile_time" else []))
    assert not done.stderr and done.returncode in (0, 1)
    table = [line for line in done.stdout.splitlines() if re.fullmatch(r"\|.*\d \|", line)]
    assert len(table) == rows, done.stdout


@pytest.mark.parametrize("script", ["step", "steps"])
def test_the_step_benchmarks_are_python(script: str) -> None:
    """They need PyTorch, which no test installs."""
    path = ROOT / "benchmarks" / f"{script}.py"
    compile(path.read_text(encoding="utf-8"), str(path), "exec")
