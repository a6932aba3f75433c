"""Settings, log words, dumps and timing: the switches of `graphc.settings` and what `graphc.observe` makes of them."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import observe, settings
from graphc.errors import SettingError
from graphc.settings import Settings, config, current, from_environment

ROOT = Path(__file__).resolve().parent.parent


def test_every_switch_has_doc_and_variable() -> None:
    assert len(settings.SWITCHES) < 12
    text = settings.table()
    for name, field in settings.SWITCHES.items():
        assert field.metadata["doc"] in text
        assert settings.variable(name) in text


def test_environment_is_parsed() -> None:
    found = from_environment(
        {
            "GRAPHC_LOG": "passes, fusion",
            "GRAPHC_DUMP": "/tmp/somewhere",
            "GRAPHC_VERIFY": "on",
            "GRAPHC_NUM_THREADS": "3",
            "GRAPHC_CACHE": "0",
            "GRAPHC_CACHE_DIR": "",
            "GRAPHC_DISABLE": "fold_constants",
            "GRAPHC_FOLD_LIMIT": "0",
            "PATH": "/bin",
        }
    )
    assert found.log == {"passes", "fusion"}
    assert found.dump == Path("/tmp/somewhere")
    assert found.verify and not found.cache and found.stabilize and not found.fast_math
    assert found.threads == found.num_threads == 3
    assert found.disable == {"fold_constants"} and found.fold_limit == 0
    assert found.cache_dir == Settings().cache_dir
    assert from_environment({"GRAPHC_LOG": "all"}).log == set(settings.LOG_WORDS)
    assert from_environment({}).threads == settings.usable_cores() >= 1


def test_cache_dir_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert from_environment({}).cache_dir == tmp_path / "graphc"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert from_environment({}).cache_dir == Path.home() / ".cache" / "graphc"
    assert from_environment({"GRAPHC_CACHE_DIR": "~/x"}).cache_dir == Path.home() / "x"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("GRAPHC_LOG", "passes,fusoin", "unknown word fusoin; valid words are passes, fusion, stabilize"),
        ("GRAPHC_VERIFY", "maybe", "valid values are 1, true, on, yes, 0, false, off, no"),
        ("GRAPHC_NUM_THREADS", "0", "valid values are integers from 1"),
        ("GRAPHC_NUM_THREADS", "two", "GRAPHC_NUM_THREADS='two': valid values are integers from 1"),
        ("GRAPHC_FOLD_LIMIT", "-1", "valid values are integers from 0"),
    ],
)
def test_wrong_values_name_the_valid_ones(variable: str, value: str, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        from_environment({variable: value})
    assert message in str(caught.value) and variable in str(caught.value)


def test_unknown_variable_warns() -> None:
    with pytest.warns(UserWarning, match="no variable GRAPHC_VERIFFY; it has GRAPHC_LOG"):
        from_environment({"GRAPHC_VERIFFY": "1"})


def test_config_nests_and_restores() -> None:
    before = current()
    with config(verify=True, log="passes") as outer:
        assert current() is outer and current().verify and current().log == {"passes"}
        with config(verify="off", dump="somewhere"):
            assert not current().verify and current().log == {"passes"} and current().dump == Path("somewhere")
        with pytest.raises(RuntimeError), config(cache=False):
            raise RuntimeError
        assert current() is outer
    assert current() is before


def test_config_holds_in_its_own_thread_only() -> None:
    seen: list[bool] = []
    with config(verify=not current().verify):
        thread = threading.Thread(target=lambda: seen.append(current().verify))
        thread.start()
        thread.join()
        assert seen == [not current().verify]


def test_config_rejects_unknown_switches() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"verfy": True}, "config has no switch verfy\n  hint: the switches are log, dump, verify"),
        ({"num_threads": True}, "num_threads=True: valid values are integers from 1"),
        ({"log": 3}, "log=3: valid are names"),
        ({"dump": 3}, "dump=3: valid is the path of a folder"),
    ]
    for changes, message in wrong:
        with pytest.raises(SettingError, match=message), config(**changes):
            pytest.fail("config should not have accepted this")


def test_log_writes_enabled_words_only(capsys: pytest.CaptureFixture[str]) -> None:
    with config(log="fusion"):
        observe.log("fusion", "two\nlines")
        observe.log("passes", lambda: pytest.fail("not asked for"))
    assert capsys.readouterr().err == "graphc fusion: two\n    lines\n"
    with pytest.raises(KeyError, match="no log word"):
        observe.log("fuson", "x")


def test_dump_numbers_files(tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    folder.mkdir()
    (folder / "07-stale.txt").write_text("of an earlier run")
    (folder / "notes.txt").write_text("the user's own")
    with config(dump=folder):
        step = observe.Observer("step")
        step.level("graph", "a graph")
        step.level("llvm", lambda: "define")
        predict = observe.Observer("pre dict")
        predict.level("asm", "ret\n")
    observe.Observer("no dump").level("graph", lambda: pytest.fail("not asked for"))
    assert sorted(p.name for p in folder.iterdir()) == ["00-graph.txt", "01-llvm.ll", "02-pre_dict.asm.s", "notes.txt"]
    assert (folder / "00-graph.txt").read_text() == "a graph\n"


def test_observer_times_steps(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 1.25, 2.0, 5.0, 5.5, 7.0, 7.001])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    seen = observe.Observer("step")
    with seen.step("passes"), seen.step("fuse"):
        pass
    with seen.step("emit"):
        pass
    with pytest.raises(RuntimeError), seen.step("emit"):
        raise RuntimeError
    assert seen.seconds == pytest.approx({"passes": 2.0, "passes/fuse": 0.25, "emit": 0.501})
    with config(log="compile"):
        seen.finish()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "graphc compile: step: 2501.00 ms"
    assert [line.split()[0] for line in lines[1:]] == ["passes", "fuse", "emit"]
    assert lines[2].split()[1:] == ["250.00", "ms"]


def test_reproducer_is_a_file() -> None:
    path = Path(observe.reproducer("graph g {\n}\n"))
    try:
        assert path.read_text() == "graph g {\n}\n"
    finally:
        path.unlink()


def test_program_and_memory_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    x, w = graphc.placeholder("x", ("n", 8)), graphc.parameter("w", np.ones((8, 4), "float32"))
    hidden = graphc.tanh(x @ w)
    with config(log="program,memory", cache=False):
        fn = graphc.function([x], (hidden @ w.T).sum(0), updates={w: w * 0.5}, name="told")
        fn(np.ones((5, 8), "float32"))
        fn(np.ones((6, 8), "float32"))
        fn(np.ones((5, 8), "float32"))
    told = capfd.readouterr().err
    assert told.startswith("graphc program: program told(n):\n") and "chunks" in told
    assert "update w in place" in told or "update w copied from" in told
    arenas = [line for line in told.splitlines() if line.startswith("graphc memory: ")]
    assert [re.sub(r"\d+ bytes", "B bytes", line) for line in arenas] == [
        f"graphc memory: told: an arena of B bytes with n = {n}, for temporaries of {line.split()[-1]}"
        for n, line in zip((5, 6), arenas, strict=True)
    ]
    lives = re.findall(r"\n    (\S+): (\d+) bytes at (\d+), regions (\d+) to (\d+)", told)
    assert lives and all(int(offset) % 64 == 0 and int(first) <= int(last) for _, _, offset, first, last in lives)


def test_passes_tell_and_are_verified_with_a_plan_in_the_cache_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = graphc.placeholder("x", ("n", 8), "float32")
    y = graphc.log(1 + x * x)  # the stabilising table has a rule for it

    def told(**changes: object) -> str:
        with config(cache=True, cache_dir=tmp_path, **changes):
            assert np.all(graphc.function([x], y)(np.ones((3, 8), "float32")) > 0.6)
        return capsys.readouterr().err

    told()
    for word in sorted(settings.WORDS_OF_PASSES):
        assert f"graphc {word}: " in told(log=word), word
    assert "graphc cache: hit " in told(log="cache")
    verified: list[object] = []
    monkeypatch.setattr("graphc.passes.manager.verify", lambda graph, after: verified.append(graph))
    told()
    assert not verified
    told(verify=True)
    assert verified


def test_every_log_word_is_used_somewhere() -> None:
    sources = [p for folder in ("graphc", "passes", "runtime") for p in (ROOT / folder).rglob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert not [word for word in settings.LOG_WORDS if f'log("{word}", ' not in text]
