"""PyTorch checkpoints -> Flax weights, without PyTorch.

checkpoint (`download`, `manifest`) -> tensors (`torch_file`, `state_dict`) -> Flax names and layout
(`mapping`; the tables: `rules`, `efficientnet`, `resnet`) -> safetensors file (`weights`), in the
folder that `folder` names. Nothing in a checkpoint is ever executed.
"""

from conversion.folder import weights_folder
from conversion.weights import convert, ensure, licence

__all__ = ["convert", "ensure", "licence", "weights_folder"]
