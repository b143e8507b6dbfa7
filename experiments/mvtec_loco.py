"""MVTec LOCO AD (Bergmann et al., IJCV 2022): structural and logical anomalies of five products.

python -m experiments.mvtec_loco --category=pushpins --data=DIR

An image may have several masks; their union is its ground truth. `validation` is not trained on.
"""

import sys

from adtr_jax.data.archive import Archive
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
    archive=Archive(
        url="https://www.mydrive.ch/shares/48237/1b9106ccdfbb09a0c414bd49fe44a14a/"
        "download/430647091-1646842701/mvtec_loco_anomaly_detection.tar.xz",
        size=6_126_996_224,
        sha256="9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687",
    ),
)

if __name__ == "__main__":
    sys.exit(command(MVTEC_LOCO, "mvtec_loco"))
