"""What a training loop needs around the compiled step: minibatches and progress. Enter at those two names.

Both are plain Python over NumPy arrays; the step itself is `graphc.function`.
"""

from graphc.train.batches import minibatches
from graphc.train.progress import Progress

__all__ = ["Progress", "minibatches"]
