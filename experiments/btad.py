"""BTAD (Mishra et al., "VT-ADL", ISIE 2021): three industrial products, with masks.

python -m experiments.btad --category=01 --data=BTech_Dataset_transformed
"""

import sys

from adtr_jax.data.archive import Archive
from experiments.published import DataSet, command

BTAD = DataSet(
    title="BTAD",
    homepage="https://avires.dimi.uniud.it/papers/btad/btad.zip",
    categories=("01", "02", "03"),
    names={
        "train/ok": "train/good",
        "test/ok": "test/good",
        "test/ko": "test/ko",
        "ground_truth/ko": "ground_truth/ko",
    },
    archive=Archive(
        url="https://avires.dimi.uniud.it/papers/btad/btad.zip",
        size=1_229_193_337,
        sha256="461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
    ),
)

if __name__ == "__main__":
    sys.exit(command(BTAD, "btad"))
