"""Results on disc and in print, and the paper's rows."""

import csv
import json

import numpy as np
import pytest

from adtr_jax.data.mvtec_ad_archive import CATEGORIES, GROUPS
from adtr_jax.evaluation.metrics import METRICS
from adtr_jax.evaluation.report import HEADINGS, ScoreRow, table, write
from experiments.papers import adtr, gtrans

ALL = {name: 0.9 + i / 100 for i, name in enumerate(METRICS)}
IMAGE_ONLY = {"image_auroc": 0.5, "image_ap": 0.25, "image_f1_max": 1.0}
ROWS = [ScoreRow("grid/test/good/000.png", "good", 0, 0.1)]


def read_scores(directory):
    with open(directory / "scores.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_metrics_file_holds_the_metrics_and_nothing_else(tmp_path):
    shuffled = {name: ALL[name] for name in reversed(METRICS)}
    write(tmp_path / "runs" / "grid", shuffled, ROWS)
    read = json.loads((tmp_path / "runs" / "grid" / "metrics.json").read_text())
    assert read == ALL
    assert tuple(read) == METRICS
    names = sorted(path.name for path in (tmp_path / "runs" / "grid").iterdir())
    assert names == ["metrics.json", "scores.csv"]


def test_what_is_no_metric_or_not_finite_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="no such metric: seconds"):
        write(tmp_path, {**ALL, "seconds": 3.0}, ROWS)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path, {"image_auroc": float("nan")}, ROWS)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_result_is_replaced(tmp_path):
    write(tmp_path, ALL, [*ROWS, *ROWS])
    write(tmp_path, IMAGE_ONLY, ROWS)
    assert json.loads((tmp_path / "metrics.json").read_text()) == IMAGE_ONLY
    assert len(read_scores(tmp_path)) == 2


def test_scores_are_read_back_exactly(tmp_path):
    scores = [float(np.float32(0.1)), 1 / 3, -2.5e-17]
    rows = [ScoreRow(f"a,b/test/x/{i}.png", "x", i % 2, s) for i, s in enumerate(scores)]
    write(tmp_path, IMAGE_ONLY, rows)
    header, *lines = read_scores(tmp_path)
    assert header == ["path", "defect", "label", "score"]
    assert [line[0] for line in lines] == [row.path for row in rows]
    assert [int(line[2]) for line in lines] == [0, 1, 0]
    assert [float(line[3]) for line in lines] == scores


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", " =", "＝"])
def test_no_name_is_a_formula(tmp_path, start):
    name = f"{start}HYPERLINK(1)"
    write(tmp_path, IMAGE_ONLY, [ScoreRow(f"{name}/test/x/0.png", name, 1, 0.5)])
    path, defect, _, score = read_scores(tmp_path)[1]
    assert path == f"./{name}/test/x/0.png"
    assert defect == f"'{name}"
    assert float(score) == 0.5


def test_no_separator_in_a_name_starts_a_cell(tmp_path):
    name = 'a;=1+1,"b"\n=2'
    write(tmp_path, IMAGE_ONLY, [ScoreRow(name, "x", 1, 0.5)])
    assert read_scores(tmp_path)[1][0] == name
    text = (tmp_path / "scores.csv").read_text().split("\n", 1)[1]
    assert text == '"a;=1+1,""b""\n=2","x",1,0.5\n'


def test_a_name_that_is_not_unicode_is_escaped(tmp_path):
    write(tmp_path, IMAGE_ONLY, [ScoreRow("a\udce9.png", "x", 1, 0.5)])
    assert read_scores(tmp_path)[1][0] == r"a\udce9.png"


def test_table_of_one_category():
    assert table({"grid": ALL}, *adtr.MVTEC_AD["ADTR"]).split("\n") == [
        "          image  pixel  pixel  image  pixel   image   its   pixel",
        "category  AUROC  AUROC  AUPRO     AP     AP  F1-max   FPR  F1-max",
        "grid       90.0   91.0   92.0   93.0   94.0    95.0  96.0    97.0",
        "ADTR in the paper: pixel AUROC 97.2, the mean of 15 categories",
    ]


def test_table_shows_failures_and_the_mean_of_the_rest():
    results = {
        "a": IMAGE_ONLY,
        "long name": "no images\nin a/b",
        "c": {**IMAGE_ONLY, "image_ap": 0.0},
    }
    assert table(results).split("\n") == [
        "           image  image   image",
        "category   AUROC     AP  F1-max",
        "a           50.0   25.0   100.0",
        "long name  failed: no images in a/b",
        "c           50.0    0.0   100.0",
        "mean of 2   50.0   12.5   100.0",
    ]


def test_table_has_no_mean_of_a_metric_that_a_category_lacks():
    lines = table({"a": ALL, "b": IMAGE_ONLY}).split("\n")
    assert lines[3].split() == ["b", "50.0", "-", "-", "25.0", "-", "100.0", "-", "-"]
    assert lines[4].split() == ["mean", "of", "2", "70.0", "-", "-", "59.0", "-", "97.5", "-", "-"]


def test_table_where_all_failed():
    assert table({"a": "x", "b": "y"}).split("\n") == [
        "",
        "category",
        "a         failed: x",
        "b         failed: y",
    ]


def test_papers_mean_stands_beside_a_mean_over_the_same_categories():
    (row,) = adtr.MVTEC_AD["ADTR+"]
    lines = table(dict.fromkeys(CATEGORIES, ALL), row).split("\n")
    assert lines[0].split()[:3] == ["image", "pixel", "paper's"]
    assert lines[1].split()[:4] == ["category", "AUROC", "AUROC", "ADTR+"]
    assert lines[2].split()[:4] == ["bottle", "90.0", "91.0", "-"]
    assert lines[-1].split()[:6] == ["mean", "of", "15", "90.0", "91.0", "97.5"]
    failed = dict.fromkeys(CATEGORIES, ALL) | {"zipper": "killed"}
    lines = table(failed, row).split("\n")
    assert "ADTR+" not in lines[1]
    assert lines[-1] == "ADTR+ in the paper: pixel AUROC 97.5, the mean of 15 categories"


def test_papers_values_stand_beside_the_same_category():
    lines = table({"cat": IMAGE_ONLY, "dog": IMAGE_ONLY}, *adtr.CIFAR10["ADTR"]).split("\n")
    assert lines[2].split() == ["cat", "50.0", "89.0", "25.0", "100.0"]
    assert lines[3].split() == ["dog", "50.0", "94.4", "25.0", "100.0"]
    assert lines[4].split() == ["mean", "of", "2", "50.0", "-", "25.0", "100.0"]
    assert lines[5] == "ADTR in the paper: image AUROC 94.7, the mean of 10 categories"


def test_papers_value_stands_beside_a_single_category():
    lines = table({"cat": IMAGE_ONLY}, *adtr.CIFAR10["ADTR+"]).split("\n")
    assert lines[2].split() == ["cat", "50.0", "91.7", "25.0", "100.0"]
    assert len(lines) == 4


def test_textures_and_objects_have_means_beside_the_papers():
    image_auroc, *_ = gtrans.MVTEC_AD["GTrans-R34"]
    results = {name: {"image_auroc": 0.5} for name in CATEGORIES} | {"tile": {"image_auroc": 1.0}}
    lines = table(results, image_auroc, groups=GROUPS).split("\n")
    assert [line.split() for line in lines[-3:]] == [
        ["mean", "of", "5", "textures", "60.0", "99.6"],
        ["mean", "of", "10", "objects", "50.0", "98.7"],
        ["mean", "of", "15", "53.3", "99.0"],
    ]
    lines = table(results | {"wood": "killed"}, image_auroc, groups=GROUPS).split("\n")
    assert [line.split()[2:] for line in lines[-4:-1]] == [
        ["4", "textures", "62.5", "-"],
        ["10", "objects", "50.0", "98.7"],
        ["14", "53.6", "-"],
    ]


@pytest.mark.parametrize("names", [("tile", "wood"), ("tile", "cable", "solar"), ("tile",)])
def test_one_group_or_other_data_have_no_means_of_groups(names):
    assert "ures" not in table(dict.fromkeys(names, IMAGE_ONLY), groups=GROUPS)


def test_paper_is_not_named_beside_other_data():
    assert "paper" not in table({"solar": ALL}, *adtr.MVTEC_AD["ADTR"])


@pytest.mark.parametrize("method", adtr.CIFAR10)
def test_printed_means_are_the_means_of_the_printed_values(method):
    (row,) = adtr.CIFAR10[method]
    assert np.mean(list(row.values.values())) == pytest.approx(row.mean, abs=0.0006)


def test_every_metric_has_a_heading():
    assert tuple(HEADINGS) == METRICS
