"""MVTec AD 2 (Heckler-Kram et al. 2025), its public test: eight products under changing light.

python -m experiments.mvtec_ad_2 --category=vial --data=DIR

The masks of the two private tests are not published, and `validation` is not trained on.
"""

import sys

from experiments.published import DataSet, command

MVTEC_AD_2 = DataSet(
    title="MVTec AD 2",
    homepage="https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
    categories=(
        "can",
        "fabric",
        "fruit_jelly",
        "rice",
        "sheet_metal",
        "vial",
        "wallplugs",
        "walnuts",
    ),
    names={
        "train/good": "train/good",
        "test_public/good": "test/good",
        "test_public/bad": "test/bad",
        "test_public/ground_truth/bad": "ground_truth/bad",
    },
)

if __name__ == "__main__":
    sys.exit(command(MVTEC_AD_2, "mvtec_ad_2"))
