"""MVTec AD 2 (Heckler-Kram et al. 2025), its public test: eight products under changing light.

python -m experiments.mvtec_ad_2 --category=vial --data=DIR

The masks of the two private tests are not published, and `validation` is not trained on.
"""

import sys

from adtr_jax.data.archive import Archive
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
    archive=Archive(
        url="https://www.mydrive.ch/shares/150997/701c90d3aea6588f404936e32a674602/"
        "download/466712769-1743429042/mvtec_ad_2.tar.gz",
        size=32_739_596_982,
        sha256="c0ded99ef32bfc8e352d52beb44515e5b292b8598cb963aadfa91ca0763505e4",
    ),
)

if __name__ == "__main__":
    sys.exit(command(MVTEC_AD_2, "mvtec_ad_2"))
