"""How a contraction is cut up: register tile, packing, blocks of k, chunks. Numbers only; no loop IR is made here.

Enter at `plan`, which reads a `Problem` and a `Target` and gives a `Schedule`. Everything follows from the sizes (or,
where a size is a name, from expressions over it), so the number of chunks and what each of them does never depend on
threads. To tune for another machine, change the rules here; `contraction.py` carries out whatever the Schedule says.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.loops.problem import Problem
from graphc.target import Target
from graphc.types import Size, ceildiv, minimum, product

CHUNK_WORK = 1 << 15  # multiply-adds of one vector in a chunk that is worth handing out (about 7 us)
READING = 8  # rows of A: for fewer, reading B is the work (a vector from L2 takes as long as 8 multiply-adds)
STARTED = 2.5  # instructions that start in a cycle, fitted to tiles of three shapes; the fewer loads, the better
MOST_CHUNKS = 16  # of one matrix, unless the caps below ask for more
LONG_K = 4096  # a longer k is cut into blocks: up to here a panel of B is half of L2, and A streams well enough
LONG_NEST = 960  # the same of a nest of loops whose blocks run first (864 steps lose 4 % in blocks, 1024 gain 6 %)
LONG_PACKED_K = 512  # the same where A is packed: its tile should stay in L1
PACKED_ROWS = 48  # of a transposed A at a time: a few whole cache lines of each step of k
PANELS_FOR_A = 4  # of a chunk at least, where each chunk packs A: that costs about as much as half a panel
ADDRESSES = 8  # rows at a distance that is not known: so many addresses find registers
BLOCK = 384  # about the length of a block
PACKING_PAYS = 64  # rows of A, for which B is packed from half of L2 on; for fewer from all of L2 on
THIN_BLOCK = 16  # where a few rows meet a large B: so many rows of B are read side by side, over THIN_COLS columns
THIN_COLS = 2048
WIDE_STEPS = 3  # of k side by side where A moves with the columns, as rows do that are windows
CROSSED_ROWS = 96  # of A, for which B is packed where vectors in it cross cache lines
MANY_ROWS = 256  # of A, for which B is packed where they may: packing costs 1 %, crossing 10 to 20
ALL_ROWS = 1024  # of a chunk that packs columns of B; of more rows, B is packed once for chunks of fewer
ALL_ROWS_DEEP = 2048  # the same of deep columns, which serve many rows before they leave L2
DEEP = 4  # panels: columns are deep where fewer fill a quarter of L2
EVEN = 4  # chunks at least, where there is work for as many: two threads get about the same of them
WIDE_VECTORS = 4  # of columns there at most
CUT_ROWS = 128  # of a chunk, where k is cut: fewer do not pay for reading all of B
ADDED_TILES = 48  # of a chunk at least that adds up blocks, where B is read again by each chunk
HALVED_TILES = 4  # of rows at least, which are shared in place of an odd number of taps
NAMED_TILES = 6  # of a chunk that adds up blocks, where m is not known
GUESS = 256  # what a size that is not known counts as
ANY = 1 << 40
SHORT_K = 4  # an inner loop that is no longer is unrolled
MOST_UNKNOWN = 9  # rows of a tile where m is not known: of lower tiles, fewer rows are missing at the end
MISSING = 33  # a k loop of its own for tiles that lack a row, where that is one of so many rows or more of them
LACKING = 1.03  # times as long where tiles lack rows; and a k loop more to compile, a third of the time
FEW = 4  # rows, for which B is read once or twice


@dataclass(frozen=True)
class Schedule:
    """A plan for one Problem.

    height: rows of a tile. rows_known: m is a number, and the first `full` tiles have all rows, the others lack one;
    else the last tile has what is left.
    """

    lanes: int
    vectors: int  # of columns in a tile
    height: int
    full: Size  # how many tiles have all rows (of an m that is not known: all, but for the last)
    lack: int  # rows that the first tile lacks, and about as many the last, where a clip moves with the rows
    less: int  # tiles that have at most so many rows have a k loop for these; 0: there is one for all rows only
    tiles: Size  # of all rows
    rows_known: bool
    masked: str  # which panels need masks: "none", "all", or "last" (two copies of the tile)
    block: int  # steps of a tile at most; the scratch panels have this length
    blocked: bool  # there may be several blocks, whose sums wait in scratch for each other
    split: int  # how many of the outer loops run around the blocks; the others are inside of a tile
    cut: int  # steps of the outermost loop inside of a block, where a block does not have all of them; else 0
    unroll: int
    pack_a: bool
    copy_a: bool  # packed as it lies, row by row: a computed A whose steps lie side by side
    together: int  # tiles whose rows of A are packed at a time
    pack_b: bool
    panels: Size
    row_chunks: Size
    rows: int  # of a chunk, in tiles
    col_chunks: Size
    cols: int  # of a chunk, in panels
    by_rows: bool  # whether chunks with neighbouring numbers share rows of A, else columns of B
    batches: Size
    group: int  # batch elements of a chunk
    blocks_first: bool  # whether the blocks run around the batch elements, so that all of those read a block from L2

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return self.lanes * self.vectors

    @property
    def chunks(self) -> Size:
        return ceildiv(self.batches, self.group) * self.row_chunks * self.col_chunks


def plan(problem: Problem, target: Target) -> Schedule:
    """The schedule for `problem` on `target`."""
    lanes = target.lanes(problem.dtype.itemsize)
    # products on their way into a sum take registers, and elements of A that are not broadcast as they are loaded
    registers = target.vector_registers - (0 if target.fma else 1) - (0 if target.broadcasts else 2)
    vectors, most = register_tile(problem.m, problem.n, lanes, registers)
    if problem.wide_a:
        vectors, most = wide_tile(problem, lanes, registers)
    height, full, tiles = row_tiles(problem.m, most)
    lack = 0
    if problem.row_clip and known(tiles, 0) > 2:
        height, full, lack = most, tiles, (known(tiles, 0) * most - known(problem.m, 0)) // 2
    less = height // 2
    if isinstance(problem.m, int):  # rows that are missing are computed, unless they are many
        less = height - 1 if (known(tiles, 0) * height - problem.m) * MISSING > problem.m else 0
    panels = ceildiv(problem.n, vectors * lanes)
    exact = isinstance(problem.n, int) and problem.n % (vectors * lanes) == 0
    one_panel = isinstance(panels, int) and panels == 1
    masked = "none" if exact else "all" if target.masked_memory or one_panel else "last"
    copy_a = not (problem.tiles or problem.wide_a) and problem.a.computed is not None and problem.a.row != 1
    pack_a = not problem.tiles and (copy_a or packs_a(problem, most, target))
    together = max(1, PACKED_ROWS // height) if problem.a.row == 1 else 1
    thin = is_thin(problem, target)
    batches = product(problem.batch)
    unroll, block, blocked, split, cut = k_blocks(problem, pack_a and not copy_a, thin)
    steps = block if cut and not thin else problem.k
    pack_b = not problem.panels and packs_b(problem, most, steps, lanes, vectors * lanes, target)
    of_k = [clip for clip in problem.clips if clip.loop == len(problem.outer) and clip.batch is not None]
    if any(known(clip.inner, 1) % unroll for clip in of_k) or not target.fma:  # products take registers too
        unroll = 1
    if not (isinstance(problem.m, int) or isinstance(problem.a.col, int) or pack_a):
        unroll = 1  # the addresses of all rows step by a distance that is not known

    col_cap = max(1, target.l2_bytes // 4 // (block * problem.dtype.itemsize) // (vectors * lanes))
    row_cap = max(1, 256 // height) if blocked else ANY
    again = pack_a and not copy_a  # each chunk packs A
    deep = (pack_b or problem.panels) and col_cap < DEEP
    most_rows = ALL_ROWS_DEEP if deep and known(panels, 0) // min(col_cap, 2) >= 2 * EVEN else ALL_ROWS
    rows, cols, group = chunk_shape(
        problem, lanes, vectors * lanes, height, tiles, panels, again, pack_b, cut > 0, most_rows
    )
    rows, cols = min(rows, row_cap), min(cols, col_cap if pack_b or blocked or problem.panels else ANY)
    rows = even_share(tiles, rows) if isinstance(tiles, int) else rows
    if blocks_first := blocked and bool(problem.outer) and isinstance(panels, int):
        rows, cols, group = accumulated_shape(
            target.l2_bytes // 4 // (height * vectors * lanes * problem.dtype.itemsize),
            known(tiles, NAMED_TILES), panels, batches,
            apart(problem),
        )  # fmt: skip
    if thin:
        cols = max(cols, ceildiv_int(THIN_COLS, vectors * lanes))
    if problem.whole_rows:
        cols, wanted = known(panels, ANY), wanted_chunks(problem, lanes)[0]
        rows = min(row_cap, ceildiv_int(known(tiles, ceildiv_int(GUESS, height)), wanted))
    if isinstance(panels, int):
        cols = max(1, min(cols, panels))
    rows_known = isinstance(problem.m, int)
    # the next chunk finds what the two share in the cache: packed columns that fill it, else the longer side
    by_rows = known(problem.m, GUESS) > known(problem.n, GUESS) and not deep
    row_chunks = ceildiv(tiles, rows) if rows_known else ceildiv(problem.m, rows * height)
    return Schedule(
        lanes, vectors, height, full, lack, less, tiles, rows_known, masked, block, blocked, split, cut, unroll, pack_a,
        copy_a, together, pack_b, panels, row_chunks, rows, ceildiv(panels, cols), cols, by_rows, batches, group,
        blocks_first,
    )  # fmt: skip


def turns(problem: Problem, target: Target) -> bool:
    """Whether to compute C.T instead: where C has fewer columns than a vector has lanes, and A lies transposed anyway.

    The lanes are then the rows of C, all of them busy, at the price of scattered stores.
    """
    lanes = target.lanes(problem.dtype.itemsize)
    few = known(problem.n, lanes) < lanes <= known(problem.m, lanes)
    fixed = problem.wide_a or problem.whole_rows or problem.crossed
    return few and problem.a.row == 1 and problem.b.col != 0 and not fixed


def register_tile(m: Size, n: Size, lanes: int, registers: int) -> tuple[int, int]:
    """(vectors of columns, most rows) so that accumulators + vectors of B + 1 broadcast fit the registers.

    Square tiles (in vectors) load least for each multiply-add; others win where they waste fewer columns.
    """
    best, best_cost = (1, 1), float("inf")
    count = ceildiv(n, lanes)
    few = isinstance(m, int) and m <= FEW  # runs of a few cache lines come fastest
    for vectors in range(1, 5 if few else 9):
        most = (registers - registers // 10 - 1 - vectors) // vectors  # a tenth is left to the code generator
        if most < 1 or (isinstance(count, int) and vectors > max(count, 1)):
            continue
        padded = -(-count // vectors) * vectors / max(count, 1) if isinstance(count, int) else 1.0
        for rows, height, lacking in _heights(m, most):
            # a multiply-add takes half a cycle; 8 must be under way at any time; and so many instructions start in one
            cycles = max(height * vectors / 2, (height * vectors + height + vectors) / STARTED, 4.0)
            cost = cycles / (height * vectors) * padded * lacking
            if cost < best_cost - 1e-9:
                best, best_cost = (vectors, rows), cost
    return best


def _heights(m: Size, most: int) -> list[tuple[int, float, float]]:
    """(most rows, rows on average, LACKING or 1) of tiles of at most `most` rows: as high as can be, and all equal."""
    if not isinstance(m, int):
        rows = min(most, MOST_UNKNOWN)
        return [(rows, rows, 1.0)]
    rows = min(most, max(m, 1))
    tiles = ceildiv_int(m, rows)
    if m < 1 or m % tiles == 0:
        return [(rows, max(m, 1) / tiles, 1.0)]
    even = next(height for height in range(rows, 0, -1) if m % height == 0)
    return [(rows, m / tiles, LACKING), (even, even, 1.0)]


def wide_tile(problem: Problem, lanes: int, registers: int) -> tuple[int, int]:
    """The same where A moves with the columns: more columns save no loads, steps that read the same vectors do.

    Beside the accumulators, registers hold what a few steps read of A and of B. Few rows, as the taps of a window are,
    take more columns: what a tile leaves out of each pixel is read from far away once more.
    """
    vectors, m = 2 if registers >= 32 else 1, known(problem.m, ANY)
    if registers >= 32 and (most := min(WIDE_VECTORS, 3 * registers // 8 // max(1, m))) > vectors:
        return even_share(ceildiv_int(known(problem.n, most * lanes), lanes), most), m
    columns = minimum(problem.n, vectors * lanes)
    return register_tile(problem.m, columns, lanes, registers - 2 * WIDE_STEPS * vectors)


def row_tiles(m: Size, most: int) -> tuple[int, Size, Size]:
    """(height, how many tiles have all rows, number of tiles): m in even heights of at most `most` rows."""
    if isinstance(m, int):
        tiles = -(-m // most)
        height = even_share(m, most)
        return height, m - (height - 1) * tiles, tiles
    return most, ceildiv(m, most), ceildiv(m, most)


def is_thin(problem: Problem, target: Target) -> bool:
    """Whether few rows of A meet a B that is larger than L2: all that counts is to read B as it lies in memory."""
    b, size = problem.b, known(problem.k, 0) * known(problem.n, 0) * problem.dtype.itemsize
    few = known(problem.m, ANY) <= 2 * FEW and not (problem.outer or problem.row_clip)
    return few and b.col == 1 and b.row == problem.n and size > 2 * target.l2_bytes


def k_blocks(problem: Problem, pack_a: bool, thin: bool) -> tuple[int, int, bool, int, int]:
    """(unroll, steps of a block, whether there may be several, outer loops around them, how the next one is cut).

    No k loop has a remainder. Short ones, as windows have, are unrolled.
    """
    k, outer = problem.k, problem.outer
    deepest = problem.row_clip.loop if problem.row_clip else ANY  # tiles know which rows lack its steps
    if not isinstance(k, int):
        return 1, BLOCK, True, len(outer), BLOCK
    if thin and k % 2 == 0 and k > THIN_BLOCK:
        return 2, THIN_BLOCK, True, 0, THIN_BLOCK
    unroll = k if outer and 0 < k <= SHORT_K else 2 if k % 2 == 0 else 1
    limit = LONG_PACKED_K if pack_a else LONG_K
    if outer:
        limit = LONG_NEST if isinstance(problem.n, int) else limit
    for split in range(len(outer) + 1):
        steps = product(loop.extent for loop in outer[split:]) * k
        if isinstance(steps, int) and (steps <= limit or split == deepest):
            return unroll, max(steps, 1), split > 0, split, 0
        if isinstance(steps, int) and split < len(outer):
            extent = known(outer[split].extent, 1)
            if (some := BLOCK // (steps // extent)) > 1:
                some = even_share(extent, some)
                return unroll, some * (steps // extent), True, split, some
    length = ceildiv_int(even_share(k, BLOCK), 16) * 16
    return 2 if k % 2 == 0 else 1, length, True, len(outer), length


def packs_b(problem: Problem, most: int, steps: Size, lanes: int, width: int, target: Target) -> bool:
    """Whether B goes through k-major panels: its columns do not lie side by side; or they are no whole vectors, where a
    masked load is a branch for each lane; or it is larger than L2, of which the `steps` read together count; or many
    rows of A read panels of `width` columns that may begin within a cache line, and so touch one more in each step; or
    it is computed, and each batch element has its own.
    """
    b, itemsize = problem.b, problem.dtype.itemsize
    if problem.n == 1 or b.col == 0:
        return False
    if b.col != 1 or (b.computed is not None and (b.computed.narrow or any(stride != 0 for stride in b.batch))):
        return True
    if isinstance(problem.m, int) and problem.m < 4 * most:
        return False
    if not (target.masked_loads or problem.wide_a) and known(problem.n, 1) % lanes:
        return True
    row = known(b.row, 0)
    rows, columns = (CROSSED_ROWS, 4 * lanes) if row % lanes else (MANY_ROWS, width)
    crosses = row and known(problem.m, 0) >= rows and known(problem.n, 0) > columns and isinstance(problem.k, int)
    large = target.l2_bytes // (2 if known(problem.m, ANY) >= PACKING_PAYS else 1)
    return bool(crosses or known(steps, 0) * row * itemsize >= large) and not problem.outer


def packs_a(problem: Problem, most: int, target: Target) -> bool:
    """Whether A goes through k-major tiles: where each step of k is far away, or where there are many row addresses.

    The rows of a matrix that is not transposed are streams that the hardware fetches well, whatever their distance.
    """
    a, itemsize = problem.a, problem.dtype.itemsize
    if a.computed is not None and a.computed.narrow and not problem.wide_a:
        return True
    if problem.wide_a or problem.row_clip or (isinstance(problem.m, int) and problem.m <= FEW):
        return False
    if not isinstance(a.row, int):
        return most > ADDRESSES
    far = a.row == 1 and known(problem.k, GUESS) * known(a.col, 2 * GUESS) * itemsize > target.l2_bytes // 4
    return far and known(problem.n, GUESS) >= (64 if isinstance(a.col, int) else GUESS)


def wanted_chunks(problem: Problem, lanes: int) -> tuple[int, int]:
    """(chunks of about CHUNK_WORK there should be, batch elements for that work). A size not known counts as GUESS."""
    m, n, steps = known(problem.m, GUESS), known(problem.n, GUESS), known(problem.steps, GUESS)
    # of few rows, reading B is the work
    matrix = max(1, n * steps * max(m, READING))
    worth, batches = CHUNK_WORK * lanes, known(product(problem.batch), MOST_CHUNKS)
    return max(1, min(MOST_CHUNKS, batches * matrix // worth)), max(1, worth // matrix)


def chunk_shape(
    problem: Problem, lanes: int, width: int, height: int, tiles: Size, panels: Size, pack_a: bool, pack_b: bool,
    cut: bool, most_rows: int,
) -> tuple[int, int, int]:  # fmt: skip
    """(tiles, panels, batch elements) of a chunk: about CHUNK_WORK each, so that any number of threads finds its share.

    most_rows: of a chunk that packs its columns. Only numbers come out, so the number of chunks is a short expression.
    """
    n, m = known(problem.n, GUESS), known(problem.m, GUESS)
    batches = known(product(problem.batch), MOST_CHUNKS)
    wanted, together = wanted_chunks(problem, lanes)
    group = together if problem.batch else 1
    tile_count, panel_count = known(tiles, ceildiv_int(GUESS, height)), known(panels, ceildiv_int(GUESS, width))
    wanted = ceildiv_int(wanted, max(1, batches))
    if pack_b:  # whoever shares columns packs them again (and rows, if A is packed too)
        whole = m <= most_rows and not pack_a
        side = max(min(m, 512), m // 2) if whole else min(m, 256 if pack_a else 512)
        rows = max(1, tile_count) if whole else ceildiv_int(side, height)
        cols = ceildiv_int(m * n // wanted, side * width)
        # what is read of A serves several panels from L1
        cols = max(cols, PANELS_FOR_A if pack_a else min(2, panel_count // EVEN))
    elif cut and known(problem.m, 0) > 2 * FEW:  # the blocks of B are read again by each chunk of rows, of A by columns
        parts = max(min(2, wanted), ceildiv_int(m, CUT_ROWS))
        across = parts <= panel_count and n > parts * m
        rows, cols = ceildiv_int(tile_count, 1 if across else parts), ceildiv_int(panel_count, parts if across else 1)
    else:
        rows = ceildiv_int(tile_count, wanted)
        cols = ceildiv_int(panel_count, ceildiv_int(wanted, ceildiv_int(tile_count, rows)))
    return rows, cols, group


def apart(problem: Problem) -> bool:
    """Whether the first batch axis cuts both operands into halves, of which a chunk reads one."""
    a, b = problem.a.batch[:1], problem.b.batch[:1]
    return a not in ((), (0,)) and b not in ((), (0,)) and known(problem.batch[0], 1) == 2


def accumulated_shape(room: int, tiles: int, panels: int, batches: Size, halves: bool = False) -> tuple[int, int, int]:
    """(tiles, panels, batch elements) of a chunk that adds up blocks of a long nest, with room for so many tiles.

    Where few batch elements share their operands (the taps of a weight gradient), each chunk reads both once, so there
    are only as many as two threads need, or as what they add up needs. Of many, as the lines of images are, each has
    its own part of A, and enough of them belong to a chunk for a block of B to pay for its way from memory.
    """
    rows, panels = max(1, min(tiles, room)), max(1, panels)
    if (count := known(batches, ANY)) > MOST_CHUNKS:
        least = ceildiv_int(ADDED_TILES, rows)
        cols = min(panels, max(1, room // (rows * least)))
        wanted = least if count == ANY else max(least, ceildiv_int(count, MOST_CHUNKS))
        cols = even_share(panels, cols)
        return rows, cols, even_share(count, min(wanted, max(1, room // (rows * cols))))
    if panels == 1 and count % 2 and rows == tiles >= HALVED_TILES and not halves:
        rows = ceildiv_int(tiles, 2)  # of an odd number of taps, one half would have one more
        return rows, 1, even_share(count, min(count, max(1, room // rows)))
    half = 2 if panels == 1 or halves else 1
    group = even_share(count, min(ceildiv_int(count, half), max(1, room // rows)))
    return rows, min(panels if halves else ceildiv_int(panels, 2), max(1, room // (rows * group))), group


def even_share(total: int, most: int) -> int:
    """The size of parts that are as even as can be, of at most `most`."""
    return ceildiv_int(total, ceildiv_int(total, most))


def known(size: Size, otherwise: int) -> int:
    """`size` if it is a number."""
    return size if isinstance(size, int) else otherwise


def ceildiv_int(a: int, b: int) -> int:
    """a / b rounded up, at least 1."""
    return max(1, -(-a // max(1, b)))
