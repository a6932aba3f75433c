"""The registry: every op by name, and the test that an entry is whole.

Enter at `OPS`. To add an op, call `register(Op(...))` in the file of its kind in `graphc/ops/`; its tests, its part of
the reference manual, constant folding and the gradient check follow from the entry.
"""

from __future__ import annotations

from graphc.build import OPS
from graphc.graph import Op

__all__ = ["OPS", "register"]

REQUIRED = ("reference", "gradient", "lowering", "samples")


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
    OPS[op.name] = op
    return op
