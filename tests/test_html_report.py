"""The report's file: what it is made of, how large it is, and what is said about bad input."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from report_folders import (
    HOSTILE,
    data_of,
    pictures_of,
    texture,
    write_evaluation,
    write_predictions,
)

from adtr_jax.commands import report as command
from adtr_jax.errors import InputError
from adtr_jax.evaluation.preview import Preview
from adtr_jax.evaluation.report import ScoreRow
from adtr_jax.html_report import page
from adtr_jax.html_report.evaluated import Shown
from adtr_jax.html_report.selection import choose, choose_judged, starting_threshold


def test_an_evaluation_is_all_in_the_file(tmp_path, capsys):
    rows = write_evaluation(tmp_path / "run")
    assert command.main([str(tmp_path / "run")]) == 0
    file = tmp_path / "run/report.html"
    assert capsys.readouterr().out == f"{file}\n"
    data = data_of(file)
    assert [image["path"] for image in data["images"]] == [row.path for row in rows]
    assert [image["score"] for image in data["images"]] == [row.score for row in rows]
    assert [image["label"] for image in data["images"]] == [row.label for row in rows]
    card = json.loads((tmp_path / "run/model_card.json").read_text())
    assert data["start"] == card["threshold"] and data["calibration"] == card["calibration"]
    facts = {heading: dict(pairs) for heading, pairs in data["facts"]}
    assert facts["Model"]["SHA-256"] == "3fa9" * 16 and facts["Model"]["adtr_jax"]
    assert facts["Settings"]["layers"] == "1 2" and facts["Times"]["begun"]
    image, colours = (Image.open(io.BytesIO(layer)) for layer in pictures_of(file)[0])
    assert (image.format, image.size, colours.format) == ("JPEG", (96, 64), "PNG")


def test_nothing_is_loaded_and_no_name_ends_a_script(tmp_path):
    write_evaluation(tmp_path / "run")
    text = page.write(tmp_path / "run").read_text("utf-8")
    assert re.findall(r"(?:src|href)=[\"'][^d]", text) == []  # only data:
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []
    # Only those of the page itself: the data, the pictures, and the script.
    assert text.count("</script>") == text.count("<script") == 60 + 2
    assert [image["path"] for image in data_of(tmp_path / "run/report.html")["images"]][
        : len(HOSTILE)
    ] == list(HOSTILE)


def test_few_images_keep_their_resolution(tmp_path):
    write_predictions(tmp_path, [1.0, 2.0])
    image, _ = pictures_of(page.write(tmp_path, tmp_path / "other.html"))[0]
    (stored,) = {p.read_bytes() for p in (tmp_path / "previews").glob("00000-*.jpg")}
    assert image == stored


def test_the_highest_the_lowest_and_those_around_the_threshold_are_chosen():
    scores = np.arange(100.0)
    chosen = choose(scores, 40.2, 12)
    assert chosen.tolist() == [*range(4), *(39, 40, 41, 42), *range(96, 100)]
    assert choose(scores, 98.0, 12).tolist() == [*range(4), *range(92, 100)]
    assert choose(scores, 0.0, 100).tolist() == list(range(100))


def test_the_worst_the_best_and_those_in_between_are_drawn():
    """Good images have the even places: above the threshold they are judged wrongly."""
    scores, labels = np.arange(100.0), [i % 2 for i in range(100)]
    chosen = choose_judged(scores, labels, 49.5, 12)
    best, worst = {0, 2, 97, 99}, {1, 3, 96, 98}
    assert set(chosen.tolist()) == best | worst | {48, 49, 50, 51}
    assert choose_judged(scores, labels, 49.5, 0).tolist() == []
    assert choose_judged(scores, labels, 49.5, 1).tolist() in ([49], [50])


def test_what_is_shown_anywhere_is_known_beforehand():
    rows = [ScoreRow(f"{i}.png", "good", i % 2, float(i)) for i in range(3000)]
    few, all_ = (Shown.of(rows, 2000.0, pictures) for pictures in (10, None))
    assert len(few.pictures) == 10 and len(all_.pictures) == len(all_.all) == 3000
    np.testing.assert_array_equal(few.listed, choose(np.arange(3000.0), 2000.0))
    overview = {*(2999, 2997, 2995), *(1, 3, 5), *(2998, 2996, 2994)}
    assert set(few.all) == {*few.listed} | {*few.pictures} | overview


def test_without_a_threshold_the_best_f1_is_the_start():
    rng = np.random.default_rng(0)
    labels = (rng.random(200) < 0.4).astype(int)
    scores = rng.normal(labels * 1.5)

    def f1(threshold):
        above = scores > threshold
        return 2 * (above & (labels == 1)).sum() / (above.sum() + labels.sum())

    start, origin = starting_threshold(scores, labels.tolist(), None)
    assert f1(start) == max(f1(t) for t in [*scores, -9.0]) and "not calibrated" in origin
    assert starting_threshold(scores, labels.tolist(), 0.25)[0] == 0.25
    assert starting_threshold(scores, [None] * 200, None)[0] == scores.max()


def test_a_previews_colours_lie_where_the_map_is():
    image = texture(np.random.default_rng(0), 1000, 500)
    score_map = np.zeros((80, 80), np.float32)
    score_map[:40, 40:] = 1
    made = Preview.of(image, score_map, (0.0, 1.0), crop=0.8)
    with Image.open(io.BytesIO(made.image)) as photo:
        assert photo.size == (640, 320)
    colours = np.asarray(Image.open(io.BytesIO(made.colours)).convert("RGBA"))
    side = len(colours)
    alpha = colours[..., 3] > 127
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    edges = np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]) / side
    np.testing.assert_allclose(edges, [0.1, 0.5, 0.5, 0.9], atol=1.5 / side)
    # The last level's colour, nearly white, fully opaque.
    assert colours[side // 4, side * 3 // 4].tolist()[3] == 255
    assert colours[side // 4, side * 3 // 4].min() > 140


def test_results_without_previews_are_shown_with_their_pictures(tmp_path):
    rows = write_evaluation(tmp_path / "run", 12)
    for part in ("images.jsonl", "model_card.json"):
        (tmp_path / "run" / part).unlink()
    shutil.rmtree(tmp_path / "run/previews")
    (tmp_path / "run/pictures").mkdir()
    texture(np.random.default_rng(0), 300, 100).save(tmp_path / "run/pictures/good_9.png")
    file = page.write(tmp_path / "run")
    data = data_of(file)
    shown = [image["path"] for image in data["images"] if image["picture"]]
    assert shown == [rows[9].path] and not any(image["layered"] for image in data["images"])
    assert data["threshold"] is None and data["calibration"] == []
    assert Image.open(io.BytesIO(pictures_of(file)[9][0])).size == (300, 100)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "none does not exist: give the folder of predictions, or of a run"),
        ({}, "none holds neither predictions.jsonl nor scores.csv: give the folder that adtr-jax"),
        ({"predictions.jsonl": ""}, "none holds no scores: there is nothing to report"),
        ({"scores.csv": "a,b\n1,2\n"}, "none holds damaged results ("),
        (
            {"scores.csv": '"path","defect","label","score"\n', "metrics.json": "{"},
            "none holds damaged results (",
        ),
        (
            {"predictions.jsonl": "", "model_card.json": '{"x": 1}'},
            "none/model_card.json is damaged (",
        ),
    ],
)
def test_what_is_no_folder_of_results(files, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (files or {}).items():
        (tmp_path / "none").mkdir(exist_ok=True)
        (tmp_path / "none" / name).write_text(text)
    if files is not None:
        (tmp_path / "none").mkdir(exist_ok=True)
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        command.main(["none"])
    assert not (tmp_path / "none/report.html").exists()


def test_a_damaged_preview_and_a_folder_for_a_file(tmp_path):
    write_evaluation(tmp_path / "run", 6)
    with pytest.raises(InputError, match="is a folder: name the report's file"):
        command.main([str(tmp_path / "run"), f"--out={tmp_path}"])
    write_predictions(tmp_path / "results", [1.0])
    (preview,) = (tmp_path / "results/previews").glob("*.jpg")
    preview.unlink()
    (tmp_path / "results/overlays" / f"{preview.stem}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"\.png is damaged: make the results again"):
        page.write(tmp_path / "results")
