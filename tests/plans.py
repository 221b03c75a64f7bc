"""Plans for tests: every path, in pieces small enough for short inputs to have several."""

from hyenadna_hf.model.plan_hyenadna import Plan
from hyenadna_hf.model.tuning_hyenadna import TUNING

SMALL = TUNING._replace(positions=7, row_positions=7, channels=3, short_transforms=1, small_gates=1)
# With prefixes, which only long inputs have otherwise.
PREFIXES = SMALL._replace(least_prefix=1)

TRANSPARENT = Plan("transparent")
WHOLE = Plan("whole")
ROWS = Plan("rows", tuning=SMALL)
PIECES = Plan("pieces", tuning=SMALL)
LOW = Plan("pieces", low_memory=True, tuning=SMALL)
IN_PLACE = Plan("in_place", tuning=SMALL)
