"""BTAD (Mishra et al., "VT-ADL", ISIE 2021): three industrial products, with masks.

python -m experiments.btad --category=01 --data=BTech_Dataset_transformed
"""

import sys

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
)

if __name__ == "__main__":
    sys.exit(command(BTAD, "btad"))
