"""PyTorch checkpoints -> Flax weights, without PyTorch.

checkpoint (`download`, `manifest`) -> tensors (`torch_file`, `state_dict`) -> Flax names and layout
(`mapping`; the tables: `rules`, `efficientnet`, `resnet`) -> safetensors file (`weights`), in the
folder that `folder` names. Nothing in a checkpoint is ever executed.
"""

import sys

from adtr_jax import interrupt

INTERRUPTED = "interrupted; the same command goes on with a download"

if sys.argv[:1] == ["-m"]:  # `python -m conversion` begins; what it imports takes a second
    interrupt.take_over(INTERRUPTED)

from conversion.folder import weights_folder  # noqa: E402
from conversion.weights import convert, ensure, licence  # noqa: E402

__all__ = ["convert", "ensure", "licence", "weights_folder"]
