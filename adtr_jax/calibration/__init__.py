"""From the scores of held-out normal images to a decision: what is anomalous, where, and how sure.

`conformal`: the rates that n images can promise; `tail`: a rate that they cannot, estimated;
`calibration`: p-values and thresholds; `regions`: where a score map exceeds its threshold;
`drift`: images that as a whole are unlike the calibration's. Nothing here imports JAX.
"""

from adtr_jax.calibration.calibration import Calibration
from adtr_jax.calibration.decision import Decision, ThresholdKind
from adtr_jax.calibration.drift import Drift
from adtr_jax.calibration.regions import Region, find_regions

__all__ = ["Calibration", "Decision", "Drift", "Region", "ThresholdKind", "find_regions"]
