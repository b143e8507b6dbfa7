"""VisA (Zou et al., "SPot-the-Difference", ECCV 2022): twelve objects, in its 1-class split.

python -m experiments.visa --category=candle --data=VisA_20220922
"""

import csv
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from adtr_jax.data.archive import Archive
from adtr_jax.errors import InputError, one_line
from experiments.published import DataSet, command

SPLIT = Path("split_csv/1cls.csv")
# (split, label) -> the folder of MVTec-AD's layout.
FOLDERS = {
    ("train", "normal"): "train/good",
    ("test", "normal"): "test/good",
    ("test", "anomaly"): "test/anomaly",
}


def names(category: Path) -> Mapping[str, str]:
    """The images and masks of the category's rows in the table of the 1-class split."""
    table, found = category.parent / SPLIT, {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                if row["object"] != category.name:
                    continue
                for path, folder in (
                    (row["image"], FOLDERS[row["split"], row["label"]]),
                    (row["mask"], "ground_truth/anomaly"),
                ):
                    if path:
                        inside = PurePosixPath(path).relative_to(category.name)
                        if ".." in inside.parts:
                            raise ValueError(f"{path} leads out of it")
                        found[inside.as_posix()] = f"{folder}/{inside.name}"
    except (OSError, UnicodeDecodeError, csv.Error, LookupError, TypeError, ValueError) as error:
        reason = one_line(error)
        raise InputError(f"cannot read the split {table} ({reason})") from error
    return found


VISA = DataSet(
    title="VisA",
    homepage="https://github.com/amazon-science/spot-diff",
    categories=(
        "candle",
        "capsules",
        "cashew",
        "chewinggum",
        "fryum",
        "macaroni1",
        "macaroni2",
        "pcb1",
        "pcb2",
        "pcb3",
        "pcb4",
        "pipe_fryum",
    ),
    names=names,
    archive=Archive(
        url="https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
        size=1_929_840_640,
        sha256="2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
    ),
)

if __name__ == "__main__":
    sys.exit(command(VISA, "visa"))
