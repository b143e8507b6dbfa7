"""Published data sets: the layout of each as its archive unpacks, read as MVTec-AD's is."""

import hashlib
import importlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from adtr_jax.data import load_masks
from adtr_jax.data.archive import Archive
from adtr_jax.detectors.methods import PRESETS
from adtr_jax.errors import InputError
from experiments.folders import category, defaults
from experiments.published import DataSet
from tests.stripes import ROOT, SIDE, call, write_category
from tests.test_data_folders import write
from tests.test_download import Web

SPLIT = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0001.JPG,
candle,test,normal,candle/Data/Images/Normal/0000.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
pcb1,train,normal,pcb1/Data/Images/Normal/0002.JPG,
"""
# module -> category, files, and what they are
LAYOUTS: dict[str, tuple[str, Sequence[str], Sequence[tuple[str, str, str | None]]]] = {
    "visa": (
        "candle",
        [
            "candle/Data/Images/Normal/0000.JPG",
            "candle/Data/Images/Normal/0001.JPG",
            "candle/Data/Images/Normal/0002.JPG",
            "candle/Data/Images/Anomaly/000.JPG",
            "candle/Data/Masks/Anomaly/000.png",
        ],
        [
            ("train/good/0001.JPG", "candle/Data/Images/Normal/0001.JPG", None),
            (
                "test/anomaly/000.JPG",
                "candle/Data/Images/Anomaly/000.JPG",
                "candle/Data/Masks/Anomaly/000.png",
            ),
            ("test/good/0000.JPG", "candle/Data/Images/Normal/0000.JPG", None),
        ],
    ),
    "btad": (
        "03",
        [
            "03/train/ok/0001.bmp",
            "03/test/ok/0002.bmp",
            "03/test/ko/0003.bmp",
            "03/ground_truth/ko/0003.png",
        ],
        [
            ("train/good/0001.bmp", "03/train/ok/0001.bmp", None),
            ("test/good/0002.bmp", "03/test/ok/0002.bmp", None),
            ("test/ko/0003.bmp", "03/test/ko/0003.bmp", "03/ground_truth/ko/0003.png"),
        ],
    ),
    "mvtec_ad_2": (
        "vial",
        [
            "vial/train/good/000_regular.png",
            "vial/validation/good/000_regular.png",
            "vial/test_public/good/000_overexposed.png",
            "vial/test_public/bad/000_overexposed.png",
            "vial/test_public/ground_truth/bad/000_overexposed_mask.png",
            "vial/test_private/000_regular.png",
        ],
        [
            ("train/good/000_regular.png", "vial/train/good/000_regular.png", None),
            (
                "test/bad/000_overexposed.png",
                "vial/test_public/bad/000_overexposed.png",
                "vial/test_public/ground_truth/bad/000_overexposed_mask.png",
            ),
            (
                "test/good/000_overexposed.png",
                "vial/test_public/good/000_overexposed.png",
                None,
            ),
        ],
    ),
    "mvtec_loco": (
        "pushpins",
        [
            "pushpins/train/good/000.png",
            "pushpins/validation/good/000.png",
            "pushpins/test/good/000.png",
            "pushpins/test/logical_anomalies/000.png",
            "pushpins/test/structural_anomalies/000.png",
            "pushpins/ground_truth/logical_anomalies/000/000.png",
            "pushpins/ground_truth/logical_anomalies/000/001.png",
            "pushpins/ground_truth/structural_anomalies/000/000.png",
        ],
        [
            ("train/good/000.png", "pushpins/train/good/000.png", None),
            ("test/good/000.png", "pushpins/test/good/000.png", None),
            (
                "test/logical_anomalies/000.png",
                "pushpins/test/logical_anomalies/000.png",
                "pushpins/ground_truth/logical_anomalies/000/000.png (and 1 more)",
            ),
            (
                "test/structural_anomalies/000.png",
                "pushpins/test/structural_anomalies/000.png",
                "pushpins/ground_truth/structural_anomalies/000/000.png",
            ),
        ],
    ),
}


def unpacked(root: Path, module: str) -> tuple[DataSet, str]:
    """Writes a look-alike of a data set; returns its description and a category."""
    category, files, _ = LAYOUTS[module]
    write(root, *files)
    if module == "visa":
        (root / "split_csv").mkdir()
        (root / "split_csv/1cls.csv").write_text(SPLIT)
    return getattr(importlib.import_module(f"experiments.{module}"), module.upper()), category


@pytest.mark.parametrize("module", LAYOUTS)
@pytest.mark.parametrize("inside", ["", "as_unpacked"])
def test_a_category_as_published(tmp_path: Path, module: str, inside: str) -> None:
    root = tmp_path / inside
    data_set, name = unpacked(root, module)
    category = data_set.reader(tmp_path)(name)
    found = [
        (s.name, str(s.image), None if s.mask is None else str(s.mask))
        for s in (*category.train, *category.test)
    ]
    expected = [
        (sample, str(root / image), None if mask is None else str(root / mask))
        for sample, image, mask in LAYOUTS[module][2]
    ]
    assert found == expected


def test_the_union_of_an_image_s_masks(tmp_path: Path) -> None:
    data_set, name = unpacked(tmp_path, "mvtec_loco")
    folder = tmp_path / "pushpins/ground_truth/logical_anomalies/000"
    marked = np.zeros((2, 4, 4), np.uint8)
    marked[0, 0, 1], marked[1, 3, :2] = 236, 255  # a value an anomaly, as published
    for number, mask in enumerate(marked):
        Image.fromarray(mask).save(folder / f"{number:03}.png")
    test = data_set.reader(tmp_path)(name).test
    assert np.array_equal(load_masks(test, size=4).marked[1], marked.any(axis=0))
    Image.new("L", (4, 6), 255).save(folder / "001.png")
    with pytest.raises(
        InputError, match=r"001\.png is 4 x 6 pixels, and .*000/000\.png, of the sa"
    ):
        load_masks(test, size=4)


@pytest.mark.parametrize(
    ("module", "gone", "message"),
    [
        ("btad", "03/train/ok", r"03/train/ok is missing or empty; BTAD as published is expected"),
        ("btad", "03/ground_truth", r"^$"),
        (
            "visa",
            "split_csv",
            r"cannot read the split .*/split_csv/1cls\.csv \(.*No such file.*\); V",
        ),
        (
            "mvtec_loco",
            "pushpins/ground_truth/logical_anomalies/000",
            r"has no mask while other im",
        ),
        (
            "mvtec_ad_2",
            "vial",
            r"DATA holds no category of MVTec AD 2 \(can, .*\): give the folder",
        ),
    ],
)
def test_what_is_missing(tmp_path: Path, module: str, gone: str, message: str) -> None:
    data_set, name = unpacked(tmp_path, module)
    (tmp_path / gone).rename(tmp_path.parent / f"{tmp_path.name}-{Path(gone).name}")
    if message == "^$":  # without masks, images are measured
        assert not data_set.reader(tmp_path)(name).has_masks
        return
    with pytest.raises(InputError) as caught:
        data_set.reader(tmp_path)(name)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message):
        raise InputError(str(caught.value).replace(str(tmp_path), "DATA"))


def test_a_table_that_is_no_split(tmp_path: Path) -> None:
    data_set, name = unpacked(tmp_path, "visa")
    out = SPLIT.replace("candle/Data/Images/Normal/0001", "candle/../0001")
    for text in (
        "object,split\ncandle,train\n",
        SPLIT.replace("train", "training"),
        "\0",
        "é\n",
        out,
    ):
        (tmp_path / "split_csv/1cls.csv").write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=r"1cls\.csv|as published is expected"):
            data_set.reader(tmp_path)(name)


def test_what_is_not_downloaded_is_said_to_be_had_somewhere() -> None:
    visa = importlib.import_module("experiments.visa").VISA
    page = "https://github.com/amazon-science/spot-diff"
    with pytest.raises(InputError, match=f"--data is missing: unpack VisA, .* from {page}, and"):
        replace(visa, archive=None).reader(None)
    with pytest.raises(InputError, match=f"VisA is to be had from {page}$"):
        visa.reader(Path(__file__))


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    with web.server as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield web
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ["gztar", "zip"])
def test_an_archive_is_downloaded_once(tmp_path, monkeypatch, web, kind) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data_set, name = unpacked(tmp_path / "made", "btad")
    file = Path(shutil.make_archive(str(tmp_path / "btad"), kind, tmp_path, "made"))
    web.content = file.read_bytes()
    url = web.url.replace("file.bin", file.name)
    archive = Archive(url, len(web.content), hashlib.sha256(web.content).hexdigest())

    for _ in range(2):
        category = replace(data_set, archive=archive).reader(None)(name)
        assert [s.name for s in category.train] == ["train/good/0001.bmp"]
        assert [s.name for s in category.test] == ["test/good/0002.bmp", "test/ko/0003.bmp"]
        (image,) = {sample.image.read_bytes() for sample in category.train + category.test}
        assert image == (tmp_path / "made/03/train/ok/0001.bmp").read_bytes()
    assert web.ranges == [None]
    left = tmp_path / "cache/adtr_jax/data/btad"
    assert sorted(path.name for path in left.iterdir()) == [".lock", "content"]


def test_an_archive_that_is_another_file_is_not_unpacked(tmp_path, monkeypatch, web) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data_set, _ = unpacked(tmp_path / "made", "btad")
    archive = Archive(web.url, len(web.content), "0" * 64)
    found = hashlib.sha256(web.content).hexdigest()[:8]
    with pytest.raises(InputError) as caught:
        replace(data_set, archive=archive).reader(None)
    assert str(caught.value) == (
        f"{web.url} is not the expected file (SHA-256 {found}... in place of 00000000...): get it "
        "from https://avires.dimi.uniud.it/papers/btad/btad.zip by hand, unpack it and give the "
        "folder with --data"
    )
    assert not (tmp_path / "adtr_jax/data/file").exists()
    with pytest.raises(InputError, match=r"BTAD takes 2000000000\.0 GB in .* GB are free: make"):
        replace(data_set, archive=replace(archive, size=10**18)).reader(None)


@pytest.mark.parametrize("module", LAYOUTS)
def test_every_archive_has_an_address_a_size_and_a_digest(module: str) -> None:
    data_set = getattr(importlib.import_module(f"experiments.{module}"), module.upper())
    archive = data_set.archive
    assert archive.url.startswith("https://")
    assert archive.file_name.endswith((".tar", ".zip", ".tar.gz", ".tar.xz"))
    assert archive.size > 10**9 and len(bytes.fromhex(archive.sha256)) == 32


def test_the_guide_s_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, code, *_ = (ROOT / "docs/data_sets.md").read_text().split("```")
    (tmp_path / "bolts.py").write_text(code.removeprefix("python\n"))
    monkeypatch.syspath_prepend(tmp_path)
    write(
        tmp_path / "bolts",
        "m6/normal/train/1.jpg",
        "m6/normal/test/2.jpg",
        "m6/normal/validation/3.jpg",
        "m6/rusty/images/7.jpg",
        "m6/rusty/masks/7_mask.png",
    )
    category = importlib.import_module("bolts").BOLTS.reader(tmp_path / "bolts")("m6")
    assert [s.name for s in category.train] == ["train/good/1.jpg"]
    assert [(s.name, s.defect, str(s.mask)) for s in category.test] == [
        ("test/good/2.jpg", "good", "None"),
        ("test/rust/7.jpg", "rust", str(tmp_path / "bolts/m6/rusty/masks/7_mask.png")),
    ]


PIXELS = ["--backbone=pixels", "--layers", "4", f"--image_size={SIDE}", "--preset=fast"]
PIXELS += ["--depth=1", "--width=32", "--hidden=32", "--optimiser=adamw", "--max_steps=6"]


def test_commands_train_and_measure(tmp_path: Path) -> None:
    """VisA's, and that of folders that lie anywhere, on the same stripes."""
    made = tmp_path / "stripes"
    write_category(made, wide=6)
    candle = tmp_path / "visa/candle/Data"
    candle.mkdir(parents=True)
    rows = ["object,split,label,image,mask"]
    for place, split, label in (
        ("train/good", "train", "normal"),
        ("test/good", "test", "normal"),
        ("test/noise", "test", "anomaly"),
    ):
        folder = candle / "Images" / label.title()
        shutil.copytree(made / place, folder, dirs_exist_ok=True)
        for file in sorted((made / place).iterdir()):
            image = f"candle/Data/Images/{label.title()}/{file.name}"
            mask = f"candle/Data/Masks/{file.stem}_mask.png" if label == "anomaly" else ""
            rows.append(f"candle,{split},{label},{image},{mask}")
    shutil.copytree(made / "ground_truth/noise", candle / "Masks")
    (tmp_path / "visa/split_csv").mkdir()
    (tmp_path / "visa/split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    out = f"--out={tmp_path / 'out'}"
    data = ["--category=candle", f"--data={tmp_path / 'visa'}"]
    visa = call(*data, *PIXELS, out, module="experiments.visa")
    data = [
        f"--good={made / 'train/good'}",
        f"--test_good={made / 'test/good'}",
        f"--defects={made / 'test/noise'}",
        f"--masks={made / 'ground_truth/noise'}",
    ]
    anywhere = call(*data, *PIXELS, out, module="experiments.folders")
    assert (visa.returncode, anywhere.returncode) == (0, 0), visa.stderr + anywhere.stderr
    metrics = [
        json.loads((tmp_path / "out" / name / "metrics.json").read_text())
        for name in ("candle", "parts")
    ]
    assert metrics[0] == metrics[1]
    assert metrics[0]["pixel_auroc"] > 0.9


def test_folders_hold_out_a_fifth_of_the_good_images(tmp_path: Path) -> None:
    write(tmp_path, *(f"good/{i}.png" for i in range(10)), "bad/1.png", "bad/2.png")
    options = defaults(PRESETS["adtr"]["fast"])
    options = replace(options, good=tmp_path / "good", defects=tmp_path / "bad")
    parts = category(options)
    names = [s.name for s in parts.train], [s.name for s in parts.test]
    assert (len(names[0]), len(names[1])) == (8, 4)
    assert sorted(names[0] + names[1][:2]) == [f"good/{i}.png" for i in range(10)]
    assert category(options) == parts
    write(tmp_path, "one/1.png")
    with pytest.raises(
        InputError, match=r"one/1\.png is the only good image: one to test on is nee"
    ):
        category(replace(options, good=tmp_path / "one"))
    with pytest.raises(InputError, match=r"masks is not a folder: give the folder of the masks"):
        category(replace(options, masks=tmp_path / "masks"))
