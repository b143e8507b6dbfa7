"""The results that the ADTR paper reports, for comparison.

You et al., "ADTR: Anomaly Detection Transformer with Feature Reconstruction", Tables 1, 3 and 4.
Only what is legible in the available source is here: of Table 1 the two means, of Table 2 (image
AUROC on MVTec-AD) nothing.
"""

from adtr_jax.data import cifar
from adtr_jax.data.mvtec_ad_archive import CATEGORIES
from adtr_jax.evaluation.report import PaperRow


def _mvtec_row(method: str, mean: float) -> PaperRow:
    return PaperRow(method, "pixel_auroc", CATEGORIES, {}, mean)


def _cifar10_row(method: str, per_cent: str) -> PaperRow:
    *values, mean = (round(float(value) / 100, 3) for value in per_cent.split())
    by_class = dict(zip(cifar.CLASSES, values, strict=True))
    return PaperRow(method, "image_auroc", cifar.CLASSES, by_class, mean)


# Table 1 (ADTR's mean is repeated in Table 4) and Section 4.2 (ADTR+ is better by 0.3 points).
MVTEC_AD = {
    "ADTR": (_mvtec_row("ADTR", 0.972),),
    "ADTR+": (_mvtec_row("ADTR+", 0.975),),
}
# Table 3: the classes in order, then their mean.
CIFAR10 = {
    "ADTR": (_cifar10_row("ADTR", "94.1 97.4 92.3 89.0 93.2 94.4 97.4 95.8 96.3 96.7 94.7"),),
    "ADTR+": (_cifar10_row("ADTR+", "96.2 98.0 94.5 91.7 95.1 95.6 98.0 97.1 98.0 96.9 96.1"),),
}


def _ablation(**per_cent: float) -> tuple[PaperRow]:
    values = {name: round(value / 100, 3) for name, value in per_cent.items()}
    return (PaperRow("ADTR", "pixel_auroc", tuple(values), values, None),)


# Table 4: the pixel AUROC of each row of the four ablation studies, the mean over MVTec-AD.
ABLATIONS = {
    "attention": _ablation(**{"CNN": 94.4, "w/o Attn": 94.8, "w/o Query": 94.2, "full": 97.2}),
    "target": _ablation(pixels=91.3, features=97.2),
    "backbone": _ablation(
        **{"resnet-18": 95.3, "resnet-34": 95.7, "efficientnet-b0": 96.4, "efficientnet-b4": 97.2}
    ),
    "scales": _ablation(**{"last layer": 96.0, "multi-scale": 97.2}),
}
