"""EfficientNet: PyTorch's key names and layouts -> Flax's.

Source names: the packages efficientnet-pytorch and efficientnet-lite-pytorch. Target names:
`adtr_jax.backbones.efficientnet`.
"""

from conversion.rules import KeyMap, Rule, dense, hwio, norm, pointwise, same

_BLOCK = r"_blocks\.(\d+)\."

KEYS = KeyMap(
    rules=(
        Rule(r"_conv_stem\.weight", "stem.kernel", hwio),
        *norm("_bn0", "stem"),
        Rule(rf"{_BLOCK}_expand_conv\.weight", r"blocks.\1.expand.kernel", hwio),
        # A block with expand ratio 1 has no expansion, and its BatchNorms are still _bn1 and _bn2.
        *norm(rf"{_BLOCK}_bn0", r"blocks.\1.expand"),
        Rule(rf"{_BLOCK}_depthwise_conv\.weight", r"blocks.\1.depthwise.kernel", hwio),
        *norm(rf"{_BLOCK}_bn1", r"blocks.\1.depthwise"),
        Rule(rf"{_BLOCK}_se_reduce\.weight", r"blocks.\1.squeeze.kernel", pointwise),
        Rule(rf"{_BLOCK}_se_reduce\.bias", r"blocks.\1.squeeze.bias", same),
        Rule(rf"{_BLOCK}_se_expand\.weight", r"blocks.\1.excite.kernel", pointwise),
        Rule(rf"{_BLOCK}_se_expand\.bias", r"blocks.\1.excite.bias", same),
        Rule(rf"{_BLOCK}_project_conv\.weight", r"blocks.\1.project.kernel", hwio),
        *norm(rf"{_BLOCK}_bn2", r"blocks.\1.project"),
        Rule(r"_conv_head\.weight", "head.kernel", hwio),
        *norm("_bn1", "head"),
        Rule(r"_fc\.weight", "classifier.kernel", dense),
        Rule(r"_fc\.bias", "classifier.bias", same),
    ),
    dropped=rf"({_BLOCK})?_bn[012]\.num_batches_tracked",  # a training counter
)
