"""The runtime: compiling objects and loading them, executables, buffers, threads, the cache.

Enter at `graphc.runtime.jit` (LLVM IR to addresses) and `graphc.runtime.executable` (a call). The folder stands at
the top of the repository and is linked as `graphc/runtime`.
"""

if __name__ != "graphc.runtime":
    raise ImportError(f"import graphc.runtime, not {__name__}: the folder is a part of the package graphc")
