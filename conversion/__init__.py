"""PyTorch checkpoints -> Flax weights, without PyTorch.

checkpoint (`download`, `manifest`) -> tensors (`torch_file`, `state_dict`) -> Flax names and layout
(`mapping`; the tables: `rules`, `efficientnet`, `resnet`) -> safetensors file (`weights`). Nothing
in a checkpoint is ever executed.
"""

from conversion.weights import WEIGHTS, convert, ensure

__all__ = ["WEIGHTS", "convert", "ensure"]
