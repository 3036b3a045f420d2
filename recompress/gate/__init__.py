"""The gate: may this candidate replace the champion? Pure functions over what was measured; no clock, no store, no model.

``judge`` looks at one candidate and says everything that it found; ``choose`` names the winner among those that passed. A candidate passes when every check
was made and passed: whatever is missing, not a number, empty, stale, short or mismatched is a refusal with a name (``REASONS``).
"""

from recompress.gate.choose import choose
from recompress.gate.finalists import select
from recompress.gate.judge import judge
from recompress.gate.looks import is_proven
from recompress.gate.measured import Expected, Measured, read_measured
from recompress.gate.reasons import REASONS
from recompress.gate.trainings import Again

__all__ = ["REASONS", "Again", "Expected", "Measured", "choose", "is_proven", "judge", "read_measured", "select"]
