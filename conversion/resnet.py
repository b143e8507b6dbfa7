"""ResNet: PyTorch's key names and layouts -> Flax's.

Source names: torchvision. Target names: `adtr_jax.backbones.resnet`.
"""

from conversion.rules import KeyMap, Rule, dense, hwio, norm, same


def _conv_norm(conv: str, bn: str, ours: str) -> tuple[Rule, ...]:
    """A convolution and the BatchNorm after it, which are one module here."""
    return Rule(rf"{conv}\.weight", f"{ours}.kernel", hwio), *norm(bn, ours)


# PyTorch counts layer groups and a block's convolutions from 1, the module's lists from 0.
_GROUPS = tuple((rf"layer{i + 1}\.(\d+)", rf"groups.{i}.\1") for i in range(4))

KEYS = KeyMap(
    rules=(
        *_conv_norm("conv1", "bn1", "stem"),
        *(
            rule
            for theirs, ours in _GROUPS
            for i in range(3)
            for rule in _conv_norm(
                rf"{theirs}\.conv{i + 1}", rf"{theirs}\.bn{i + 1}", f"{ours}.convolutions.{i}"
            )
        ),
        *(
            rule
            for theirs, ours in _GROUPS
            for rule in _conv_norm(
                rf"{theirs}\.downsample\.0", rf"{theirs}\.downsample\.1", f"{ours}.shortcut"
            )
        ),
        Rule(r"fc\.weight", "classifier.kernel", dense),
        Rule(r"fc\.bias", "classifier.bias", same),
    ),
    # A training counter, which files as old as the first BatchNorm do not have.
    dropped=r"(layer[1-4]\.\d+\.)?(bn[123]|downsample\.1)\.num_batches_tracked",
)
