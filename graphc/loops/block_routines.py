"""What several places of a kernel of blocks run: a tile of a product, and the packing of a block.

Enter at `tile_routine` and `pack_routine`. Both get their buffers, steps and lengths when they are called, so one of
each serves all products of a kernel.
"""

from __future__ import annotations

from graphc.loops import ir
from graphc.loops.block_plan import TileShape
from graphc.loops.builder import LANE, Builder
from graphc.loops.ir import I64, BufferParam, Expr, Op, Routine, Var, VType, const
from graphc.loops.lanes import below
from graphc.types import Dim, DType, bool_, int64, minimum


def tile_routine(name: str, dtype: DType, lanes: int, shape: TileShape, masked: bool) -> Routine:
    """c[i * c_row + j] = sum over p of a[i * a_row + p * a_step] * b[p * b_step + j], for one tile.

    No step is negative: what is read backwards has been copied. masked: B has so many `columns`, maybe fewer than the
    tile, of which no others are read.
    """
    rows, vectors, vtype, flags = shape.rows, shape.vectors, VType(dtype, lanes), VType(bool_, lanes)
    sizes = ("a_row", "a_step", "b_step", "length", "c_row", *(("columns",) if masked else ()))
    a_row, a_step, b_step, length, c_row = map(Var, sizes[:5])
    i, j, p, lane, factor = Var("i"), Var("j"), Var("p"), Var("lane"), Var("factor", vtype)
    total, column, there = ir.Reg("total", (i, j), vtype), ir.Reg("column", (j,), vtype), ir.Reg("there", (j,), flags)
    first_lane = ir.Let(lane, _times(j, const(lanes)))

    def each(var: Var, stop: int, *body: ir.Stmt) -> ir.For:
        return ir.For(var.name, const(0), const(stop), 1, body, (), "unroll")

    grown = Op("fma", (factor, column, total), vtype)
    if not dtype.is_float:
        grown = Op("add", (total, Op("mul", (factor, column), vtype)), vtype)
    of_a = ir.Load("a", _sum(_times(i, a_row), _times(p, a_step)), VType(dtype))
    of_b = ir.Load("b", _sum(_times(p, b_step), lane), vtype, there if masked else None)
    zero = ir.Const(0.0 if dtype.is_float else 0, vtype)
    step = (
        ir.Declare("column", (vectors,), vtype, zero),
        each(j, vectors, first_lane, ir.Assign(column, of_b)),
        each(i, rows, ir.Let(factor, Op("splat", (of_a,), vtype)), each(j, vectors, ir.Assign(total, grown))),
    )
    body: tuple[ir.Stmt, ...] = (
        ir.Declare("total", (rows, vectors), vtype, zero),
        ir.For("p", const(0), length, 1, step, ("total",)),
        each(i, rows, each(j, vectors, first_lane, ir.Store("c", _sum(_times(i, c_row), lane), total))),
    )
    if masked:
        wide = VType(int64, lanes)
        left = Op("splat", (Op("sub", (Var("columns"), lane), I64),), wide)
        found = ir.Assign(there, Op("lt", (Op("lanes", (), wide), left), flags))
        declared = ir.Declare("there", (vectors,), flags, ir.Const(False, flags))
        body = (declared, each(j, vectors, first_lane, found), *body)
    of_row, of_step, steps = Dim.symbol("a_row"), Dim.symbol("a_step"), Dim.symbol("length") - 1
    width = minimum(vectors * lanes, Dim.symbol("columns")) if masked else vectors * lanes
    buffers = (
        BufferParam("a", dtype, (rows - 1) * of_row + steps * of_step + 1),
        BufferParam("b", dtype, steps * Dim.symbol("b_step") + width),
        BufferParam("c", dtype, (rows - 1) * Dim.symbol("c_row") + vectors * lanes, writable=True),
    )
    return Routine(name, buffers, sizes, body)


def pack_routine(name: str, dtype: DType, lanes: int, width: int) -> Routine:
    """panel[p * width + lane] = source[lane * lane_step + p * step], by gathers; 0 for lanes from `limit` on."""
    h, sizes = Builder(lanes), ("lane_step", "step", "length", "limit")
    lane_step, step, length, limit = map(Dim.symbol, sizes)
    with h.loop("first", 0, width, lanes) as first:
        mask = below(h, limit - first)
        with h.loop("p", 0, length) as p:
            vector = h.load("source", dtype, (first + Dim.symbol(LANE)) * lane_step + p * step, mask)
            h.store("panel", p * width + first + Dim.symbol(LANE), vector, None)
    source = BufferParam("source", dtype, (limit - 1) * lane_step + (length - 1) * step + 1)
    panel = BufferParam("panel", dtype, length * width, writable=True)
    return Routine(name, (source, panel), sizes, tuple(h.levels[0].statements))


def _times(a: Expr, b: Expr) -> Expr:
    return Op("mul", (a, b), I64)


def _sum(a: Expr, b: Expr) -> Expr:
    return Op("add", (a, b), I64)
