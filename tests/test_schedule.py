"""The numbers that contractions are cut up by: tiles that fit the registers, chunks that follow from the sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc.llvm.emit import emit
from graphc.loops.ir import BufferParam
from graphc.loops.nest import Loop, Reach, arrange
from graphc.loops.packing import packed_tile
from graphc.loops.problem import Operand, Outer, Problem
from graphc.loops.schedule import Schedule, accumulated_shape, plan, register_tile, row_tiles
from graphc.runtime.jit import compile_object
from graphc.target import AVX2, AVX512, NEON, Target
from graphc.types import Dim, Size, evaluate, float32
from tests.products import generate, store_epilogue


def test_register_tiles_fit() -> None:
    for registers, lanes in ((32, 16), (16, 8), (16, 4), (32, 4)):
        for m, n in ((128, 128), (1, 1000), (1000, 10), (Dim.symbol("m"), Dim.symbol("n")), (7, 80)):
            vectors, rows = register_tile(m, n, lanes, registers)
            assert vectors * rows + vectors + 1 <= registers
            if m != 1:  # enough independent chains to keep the multipliers busy
                assert vectors * rows >= 8


def test_known_rows_are_shared_out_evenly() -> None:
    for m in range(200):
        height, full, tiles = row_tiles(m, 13)
        assert (height - 1) * int(tiles) + int(full) == m
        assert height <= 13
        assert int(full) <= int(tiles)


def test_tiles_all_have_the_same_rows_where_that_takes_no_longer() -> None:
    """One k loop instead of two, for 30 % less code; not where lower tiles load more than the rows that are missing."""

    def tile(m: int, n: int) -> tuple[int, int]:
        vectors, most = register_tile(m, n, 16, 32)
        return vectors, row_tiles(m, most)[0]

    assert [tile(m, 32) for m in (28, 32, 48, 63)] == [(2, 7), (2, 8), (2, 12), (2, 9)]
    assert [tile(m, 64) for m in (35, 40, 50, 60)] == [(4, 5), (4, 5), (4, 5), (4, 6)]
    assert [tile(m, 64) for m in (37, 64, 128, 512)] == [(4, 6)] * 4  # nothing divides 37, and 4 rows are too few


def test_tiles_that_lack_a_row_have_a_loop_of_their_own_where_they_are_many() -> None:
    def less(m: Size) -> int:
        a, b = Operand("a", 0, (), 64, 1), Operand("b", 0, (), 64, 1)
        return plan(Problem(float32, (), m, 64, 64, a, b), AVX512).less

    assert [less(m) for m in (16, 32, 33, 64, 128)] == [5] * 5  # of eleven tiles of 6 rows, two lack one
    assert [less(m) for m in (6, 60, 100, 256, 1000)] == [0] * 5
    assert less(Dim.symbol("m")) == 3


@pytest.mark.parametrize("target", [AVX2, NEON])
@pytest.mark.parametrize("m", [128, Dim.symbol("s0")])
def test_other_targets_compile(m: Size, target: Target) -> None:
    kernel = generate(
        "other", dtype=float32, batch=(), m=m, n=50, k=40, a=Operand("b0", 0, (), 40, 1), b=Operand("b1", 0, (), 1, 40),
        epilogue=store_epilogue("b2", (), 50, 1), sizes=["s0"], target=target,
        buffers=[BufferParam(f"b{i}", float32, 1, i == 2) for i in range(3)],
    )  # fmt: skip
    assert compile_object(emit(kernel, target), target, True)


def test_chunk_counts_follow_from_the_sizes() -> None:
    def schedule(m: Size, n: Size, k: Size) -> Schedule:
        return plan(Problem(float32, (), m, n, k, Operand("a", 0, (), k, 1), Operand("b", 0, (), n, 1)), AVX2)

    assert schedule(32, 32, 32).chunks == 1
    assert 4 <= int(evaluate(schedule(256, 256, 256).chunks, {})) <= 64
    batch = schedule(Dim.symbol("batch"), 128, 784).chunks
    assert evaluate(batch, {"batch": 0}) == 0
    assert evaluate(batch, {"batch": 1}) >= 1


@pytest.mark.parametrize("m", [1, 8])
def test_a_large_matrix_is_read_as_it_lies_in_memory(m: int) -> None:
    """Few rows of A: short blocks of k, and chunks of many columns."""
    schedule = plan(
        Problem(float32, (), m, 4096, 4096, Operand("a", 0, (), 4096, 1), Operand("b", 0, (), 4096, 1)), AVX2
    )
    assert schedule.cut and schedule.block == 16 and schedule.cols * schedule.width >= 2048


def test_a_large_b_is_packed_for_fewer_rows_the_larger_it_is() -> None:
    def packs(m: Size, k: int, n: int) -> bool:
        b = Operand("b", 0, (), n, 1)
        return plan(Problem(float32, (), m, n, k, Operand("a", 0, (), k, 1), b), AVX512).pack_b

    assert [packs(m, 256, 256) for m in (32, 64, Dim.symbol("m"))] == [False, True, True]  # half of L2
    assert [packs(m, 256, 240) for m in (64, Dim.symbol("m"))] == [False, False]
    assert packs(24, 512, 512) and not packs(16, 512, 512)  # all of L2


def test_chunks_that_pack_columns_have_all_rows_up_to_a_limit() -> None:
    def schedule(m: int, n: int = 1024, k: int = 1024) -> Schedule:
        a, b = Operand("a", 0, (), k, 1), Operand("b", 0, (), n, 1)
        return plan(Problem(float32, (), m, n, k, a, b), replace(AVX512, l2_bytes=1 << 21))

    assert [schedule(m).row_chunks for m in (300, 512, 619, 1024)] == [1] * 4  # each column is packed once
    assert schedule(1025, k=400).row_chunks == 2 and schedule(2048, k=400).row_chunks == 4
    deep = [schedule(m, n) for m, n in ((1025, 1024), (2048, 1024), (2048, 832), (2049, 1024))]
    assert [s.row_chunks for s in deep] == [1, 1, 4, 4]  # two panels of a chunk fill a quarter of L2; eight chunks
    assert [schedule(512, n).cols for n in (512, 448, 832)] == [2, 1, 2]  # two panels, if there are chunks enough


def test_chunks_that_share_deep_columns_follow_each_other() -> None:
    def by_rows(k: int, panels: bool, n: int = 512) -> bool:
        a, b = Operand("a", 0, (), k, 1), Operand("b", 0, (), 64 if panels else n, 1)
        return plan(Problem(float32, (), 3000, n, k, a, b, panels=panels), replace(AVX512, l2_bytes=1 << 21)).by_rows

    assert [by_rows(k, True) for k in (512, 640, 2048)] == [True, False, False]
    assert by_rows(2048, False, 32)  # columns that are not packed do not fill the cache


@pytest.mark.parametrize("together", [1, 8])
def test_packed_rows_of_a_transposed_operand_lie_close_together(together: int) -> None:
    a, b = Operand("a", 0, (), 1, 1000), Operand("b", 0, (), 1000, 1)
    schedule = plan(Problem(float32, (), 1000, 1000, 100, a, b), AVX512)
    rows, size = packed_tile(replace(schedule, together=together), 100)
    assert rows == (schedule.height if together > 1 else AVX512.lanes(4)) and size >= 100 * rows


def test_nests_run_inside_of_the_tile_or_around_it() -> None:
    def schedule(*extents: Size) -> Schedule:
        outer = tuple(Outer(extent, 4096, 4096) for extent in extents)
        problem = Problem(float32, (), 64, 64, 192, Operand("a", 0, (), 64, 1), Operand("b", 0, (), 64, 1), outer)
        assert problem.turned().turned() == problem
        return plan(problem, AVX2)

    assert (schedule(3).blocked, schedule(3).block) == (False, 576)
    assert (schedule(32, 32, 3).blocked, schedule(32, 32, 3).split) == (True, 2)
    assert schedule(Dim.symbol("n"), 3).split == 1


@pytest.mark.parametrize("taps, channels, wanted", [(3, 64, (4, 3)), (3, 80, (3, 3)), (3, 20, (2, 3)), (7, 64, (2, 7))])
def test_few_rows_of_wide_tiles_take_whole_pixels(taps: int, channels: int, wanted: tuple[int, int]) -> None:
    a, b = Operand("a", 0, (), channels, channels), Operand("b", 0, (), channels, 1)
    problem = Problem(float32, (), taps, channels, 56, a, b, (Outer(56, 4096, 4096),), wide_a=True)
    schedule = plan(problem, AVX512)
    assert (schedule.vectors, schedule.height) == wanted
    assert plan(problem, AVX2).vectors == 1  # 16 registers hold no more


def test_a_loop_of_a_nest_is_cut_into_even_parts() -> None:
    def schedule(k: int, *extents: Size, m: Size = 64, n: Size = 64) -> Schedule:
        outer = tuple(Outer(extent, 4096, 4096) for extent in extents)
        return plan(Problem(float32, (), m, n, k, Operand("a", 0, (), 64, 1), Operand("b", 0, (), 64, 1), outer), AVX2)

    lines = schedule(32, 8, 32)  # images of 32 lines, 32 pixels each
    assert (lines.split, lines.cut, lines.block, lines.blocks_first) == (1, 11, 352, True)
    images = schedule(11, 32, 11)
    assert (images.split, images.cut, images.block) == (0, 3, 363)
    assert (schedule(288, 3).cut, schedule(288, 4).cut, schedule(288, 4).split) == (0, 0, 1)
    deep = schedule(1536, 3)  # the innermost loop of a nest, too
    assert (deep.split, deep.cut, deep.block) == (1, 384, 384)
    rows = schedule(768, 3, m=Dim.symbol("m"))
    assert (rows.block, rows.blocks_first, rows.rows) == (768, True, 6)
    cols = schedule(768, 3, n=Dim.symbol("n"))  # what a chunk adds up has to have a size
    assert (cols.block, cols.blocked) == (2304, False)


def test_what_a_chunk_adds_up_fits_its_room() -> None:
    assert accumulated_shape(1000, 16, 2, 3) == (
        16,
        1,
        3,
    )  # two chunks: each has all batch elements and half the columns
    assert accumulated_shape(1000, 2, 1, 7) == (2, 1, 4)
    assert accumulated_shape(1000, 2, 4, 196) == (2, 4, 22)  # lines of images: as many as pay for a block of B
    assert accumulated_shape(1000, 2, 4, Dim.symbol("n")) == (2, 4, 24)
    for room, tiles, panels, batches in ((10, 16, 8, 9), (1, 1, 1, 1), (100, 64, 8, 3), (0, 5, 5, 5), (90, 7, 8, 99)):
        rows, cols, group = accumulated_shape(room, tiles, panels, batches)
        assert 1 <= rows <= tiles and 1 <= cols <= panels and 1 <= group <= batches
        assert rows * cols * group <= max(1, room)


def test_columns_are_packed_where_vectors_in_them_cross_cache_lines() -> None:
    def packs(m: Size, k: Size, n: int) -> bool:
        return plan(Problem(float32, (), m, n, k, Operand("a", 0, (), k, 1), Operand("b", 0, (), n, 1)), AVX512).pack_b

    assert packs(128, 128, 100) and packs(2000, 64, 90)  # rows of B are no whole vectors
    assert not packs(64, 128, 100) and not packs(128, 128, 33)  # too few rows of A; panels as wide as B, read in one go
    assert packs(256, 128, 128) and packs(512, 784, 256)  # arrays that begin within a cache line
    assert not packs(128, 256, 128) and not packs(512, 784, 64)
    assert not packs(Dim.symbol("m"), 128, 100) and not packs(512, Dim.symbol("k"), 128)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_few_rows_times_a_matrix_are_no_wide_tile(batch: int, rows: int, turned: bool) -> None:
    """The matrix, which is either operand, is read as it lies, four vectors of it at a time, once for all rows."""
    loops = [
        Loop(("b",), batch, rows * 4096, 4096 * 4096, rows * 4096, True, True, True),
        Loop(("m",), rows, 4096, 0, 4096, True, False, True),
        Loop(("n",), 4096, 0, 1, 1, False, True, True),
        Loop(("k",), 4096, 1, 4096, 0, True, True, False),
    ]
    loops = [loop.exchanged() for loop in loops] if turned else loops
    problem = arrange(float32, loops, ("y", "x") if turned else ("x", "y"), (0, 0), AVX512, []).problem
    assert not problem.wide_a and (problem.m, problem.n) == (rows, 4096)
    assert (problem.a.buffer, problem.b) == ("x", Operand("y", 0, (4096 * 4096,) if batch > 1 else (), 4096, 1))
    schedule = plan(problem, AVX512)
    assert schedule.vectors == 4 and schedule.block == 16


@pytest.mark.parametrize(
    "m, n, chunks", [(64, 64, (2, 1)), (96, 192, (2, 1)), (24, 144, (1, 2)), (300, 64, (3, 1)), (6, 64, (1, 1))]
)
def test_a_long_sum_into_few_rows_reads_its_operands_once_or_twice(m: int, n: int, chunks: tuple[int, int]) -> None:
    """Weights of 1x1 convolutions, say: each chunk of rows reads all of B, each of columns all of A."""
    problem = Problem(float32, (), m, n, 25088, Operand("a", 0, (), 1, m), Operand("b", 0, (), n, 1))
    schedule = plan(problem, replace(AVX512, l2_bytes=1 << 21))
    assert schedule.cut and (schedule.row_chunks, schedule.col_chunks) == chunks


@pytest.mark.parametrize("size, labels", [(4, "n"), (8, "n"), (16, "w"), (32, "w")])
def test_short_lines_are_no_rows(size: int, labels: str) -> None:
    """Images 64 KB or more apart share sets of the cache; but each line of few pixels would read all weights."""
    channels = (1 << 16) // (size * size) * 4
    line = size * channels
    loops = [
        Loop(("n",), 32, line * size, 0, line * size, True, False, True),
        Loop(("h",), size, line, 0, line, True, False, True),
        Loop(("w",), size, channels, 0, channels, True, False, True),
        Loop(("o",), channels, 0, 1, 1, False, True, True),
        Loop(("p",), 3, line, channels * channels * 3, 0, True, True, False),
        Loop(("q",), 3, channels, channels * channels, 0, True, True, False),
        Loop(("c",), channels, 1, channels, 0, True, True, False),
    ]
    reaches = [Reach(i, t, 1, 1, 1, size) for i, t in ("hp", "wq")]
    row = arrange(float32, loops, ("x", "y"), (0, 0), AVX512, reaches).row
    assert row is not None and row.labels == (labels,)
