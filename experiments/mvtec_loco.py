"""MVTec LOCO AD (Bergmann et al., IJCV 2022): structural and logical anomalies of five products.

python -m experiments.mvtec_loco --category=pushpins --data=DIR

An image may have several masks; their union is its ground truth. `validation` is not trained on.
"""

import sys

from experiments.published import DataSet, command

ANOMALIES = ("logical_anomalies", "structural_anomalies")
MVTEC_LOCO = DataSet(
    title="MVTec LOCO AD",
    homepage="https://www.mvtec.com/company/research/datasets/mvtec-loco",
    categories=(
        "breakfast_box",
        "juice_bottle",
        "pushpins",
        "screw_bag",
        "splicing_connectors",
    ),
    names={folder: folder for folder in ("train/good", "test/good")}
    | {f"{top}/{kind}": f"{top}/{kind}" for top in ("test", "ground_truth") for kind in ANOMALIES},
)

if __name__ == "__main__":
    sys.exit(command(MVTEC_LOCO, "mvtec_loco"))
