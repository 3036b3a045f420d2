"""The library: five functions over models and folders, for those who bring their own loop.

They run the same methods, proofs, measures and bounds as a recompression does. What they do not have is its memory: no ledger counts looks at test data, nothing is
signed, and nobody approves. For what goes into production there is ``recompress run``.
"""

from recompress.library.compress import Compressed, compress
from recompress.library.export import export
from recompress.library.judge import judge
from recompress.library.load import Model, load
from recompress.library.measure import Measurement, measure

__all__ = ["Compressed", "Measurement", "Model", "compress", "export", "judge", "load", "measure"]
