"""Print one small graph at every level, from the line that wrote it to the instructions that run.

python examples/levels.py [graph optimized program loops llvm asm]
"""

import os
import sys

import graphc

x = graphc.placeholder("x", ("n",), "float32")
y = graphc.relu(x * 2 + 1)
fn = graphc.function([x], y, name="affine_relu")

try:
    for level in sys.argv[1:] or ("graph", "optimized", "program", "loops", "llvm", "asm"):
        print(f"--- {level}\n{fn.ir(level).rstrip()}\n", flush=True)
except BrokenPipeError:  # `| head` has read enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
