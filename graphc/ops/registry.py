"""The registry: every op by name, and the test that an entry is whole.

Enter at `OPS`. To add an op, call `register(Op(...))` in the file of its kind in `graphc/ops/`; its tests, its part of
the reference manual, constant folding and the gradient check follow from the entry.
"""

from __future__ import annotations

from graphc.build import OPS
from graphc.graph import Op
from graphc.ops import lowering

__all__ = ["NAN", "OPS", "register"]

REQUIRED = ("reference", "gradient", "lowering", "samples")

# What becomes of NaN by the lowering kind, where an entry says nothing else (tests/test_reference.py holds it to that).
NAN: dict[type, str] = {
    lowering.Elementwise: "A NaN among the operands gives NaN.",
    lowering.Movement: "NaN is moved as any value.",
    lowering.Concat: "NaN is moved as any value.",
    lowering.Gather: "NaN is moved as any value.",
    lowering.IndexValue: "There is none.",
    lowering.Reduction: "A NaN in what is folded gives NaN.",
    lowering.Scan: "NaN from the first NaN on.",
    lowering.ArgReduction: "The first NaN wins.",
    lowering.Contraction: "A NaN in what is summed gives NaN, also beside a factor of 0.",
    lowering.ScatterAdd: "A NaN reaches the element that its index names, and no other.",
    lowering.ScatterInto: "A NaN reaches the element that its index names, and no other.",
    type(None): "It is given, not computed: NaN stays as it is.",
}


def register(op: Op) -> Op:
    """Enter `op`. TypeError for a field that is missing without a written reason in `op.exempt`."""
    if op.name in OPS:
        raise TypeError(f"op {op.name} is registered twice")
    if len(op.doc.strip()) < 10:
        raise TypeError(f"op {op.name} has no documentation")
    for name in REQUIRED:
        missing = getattr(op, name) in (None, tuple)
        if missing and not op.exempt.get(name):
            raise TypeError(f"op {op.name} has no {name}, and no reason for it in `exempt`")
        if not missing and name in op.exempt:
            raise TypeError(f"op {op.name} has a {name} and a reason not to have it")
    if not op.formula:
        raise TypeError(f"op {op.name} has no formula: Op(..., formula='x + y') is shown in its reference page")
    if not op.nan and type(op.lowering) not in NAN:
        kind = type(op.lowering).__name__
        raise TypeError(f"op {op.name} says nothing of NaN, and its kind {kind} has no sentence in registry.NAN")
    if not op.example and not isinstance(op.lowering, lowering.Elementwise) and "example" not in op.exempt:
        raise TypeError(f"op {op.name} has no example: Op(..., example='graphc.{op.name}(...)') is run for its page")
    OPS[op.name] = op
    return op
