"""The passes: pure functions Graph -> Graph, one file each. `graphc.passes.pipeline` lists them with reasons.

To add a pass, write `passes/VERB.py` and give it its line in the pipeline. The folder stands at the top of the
repository and is linked as `graphc/passes`.
"""

if __name__ != "graphc.passes":
    raise ImportError(f"import graphc.passes, not {__name__}: the folder is a part of the package graphc")
