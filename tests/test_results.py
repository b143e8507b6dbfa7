"""The folder of predictions: what is in its files, and what survives whatever happens."""

import csv
import json
import os
import platform
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from adtr_jax.errors import InputError
from adtr_jax.evaluation.results import COLUMNS, RECORD, PredictionRow, Results

RUN = {"model": "3fa9" * 16, "threshold": 1.25, "false_alarms": 0.01, "folds": (1, 2)}


@dataclass(frozen=True)
class Region:
    box: tuple[int, int, int, int]
    area: int
    peak: float


def row(path="a.png", anomalous=False, regions=(), score=0.25):
    return PredictionRow(path, anomalous, score, 1 / 3, 1.1, 1.25, regions, None)


def failed(path="bad.png", error="bad.png is empty"):
    return PredictionRow(path, None, None, None, None, None, (), error)


def read(directory):
    """Both files, after a check that they agree."""
    with (directory / "predictions.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    text = (directory / "predictions.jsonl").read_text("utf-8")
    assert text == "" or text.endswith("\n")
    records = [json.loads(line) for line in text.splitlines()]
    assert len(table) == len(records)
    for cells, record in zip(table, records, strict=True):
        assert tuple(cells) == COLUMNS and tuple(record) == RECORD
        path = record["path"].encode("utf-8", "backslashreplace").decode()
        assert cells["path"].removeprefix("./") == path.removeprefix("./")
        number = "" if record["score"] is None else record["score"]
        assert cells["score"] == str(number)
    return table, records


def paths(directory):
    return [record["path"] for record in read(directory)[1]]


def write(directory, *rows, run=RUN):
    with Results(directory, run) as results:
        for each in rows:
            results.add(each)
    return results


def test_both_files_say_the_same(tmp_path):
    regions = [Region((1, 2, 30, 40), 77, 0.9), Region((np.int64(5), 6, 7, 8), 3, 0.8)]
    write(tmp_path / "out", row("sub/a b.png", True, regions), failed())
    header = (tmp_path / "out" / "predictions.csv").read_text().split("\n")[0]
    assert header == "path,anomalous,score,p_value,raw_score,threshold,regions,error,product"
    table, records = read(tmp_path / "out")
    assert list(table[0].values()) == [
        *("sub/a b.png", "true", "0.25", "0.3333333333333333", "1.1", "1.25", "2", "", "")
    ]
    assert list(table[1].values()) == ["bad.png", *[""] * 6, "bad.png is empty", ""]
    assert records == [
        {
            "path": "sub/a b.png",
            "anomalous": True,
            "score": 0.25,
            "p_value": 1 / 3,
            "raw_score": 1.1,
            "threshold": 1.25,
            "regions": [
                {"box": [1, 2, 30, 40], "area": 77, "peak": 0.9},
                {"box": [5, 6, 7, 8], "area": 3, "peak": 0.8},
            ],
            "error": None,
            "product": None,
            "size": None,
        },
        dict.fromkeys(RECORD) | {"path": "bad.png", "regions": [], "error": "bad.png is empty"},
    ]
    assert json.loads((tmp_path / "out" / "settings.json").read_text()) == RUN | {"folds": [1, 2]}


def test_no_regions_and_a_normal_image_are_a_zero_and_false(tmp_path):
    write(tmp_path, row())
    assert [read(tmp_path)[0][0][name] for name in ("anomalous", "regions")] == ["false", "0"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", " =", "＝"])
def test_no_name_and_no_error_is_a_formula(tmp_path, start):
    name = f'{start}HYPERLINK("x";1)'
    write(tmp_path, row(f"{name}.png"), failed("b.png", f"{start}1+1"))
    table, records = read(tmp_path)
    assert table[0]["path"] == f"./{name}.png"
    assert table[1]["error"] == f"'{start}1+1".replace("\t", "").replace("' ", "'")
    assert records[0]["path"] == f"{name}.png"


def test_no_name_breaks_a_line(tmp_path):
    names = ['a;b,"c"', "two\nlines", "\u2028", "\r", "画像.png", "null", "#"]
    write(tmp_path, *map(row, names), failed("x", "two\n  lines"))
    lines = (tmp_path / "predictions.jsonl").read_bytes().split(b"\n")
    assert len(lines) == len(names) + 2
    assert [json.loads(line)["path"] for line in lines[:-1]] == [*names, "x"]
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.reader(file))
    assert [cells[0] for cells in table[1:]] == [*names, "x"]
    assert table[-1][-2:] == ["two lines", ""]


def test_a_name_that_is_not_unicode_is_escaped_and_known_again(tmp_path):
    write(tmp_path, row("caf\udce9.png"))
    assert write(tmp_path).done == {"caf\udce9.png"}
    assert read(tmp_path)[0][0]["path"] == r"caf\udce9.png"


def test_the_same_run_goes_on_and_tries_errors_again(tmp_path):
    first = write(tmp_path, row("a.png"), failed("b.png"), row("c.png", anomalous=True))
    assert (first.done, first.anomalous) == ({"a.png", "c.png"}, 1)
    with Results(tmp_path, RUN) as second:
        assert (second.done, second.anomalous) == ({"a.png", "c.png"}, 1)
        second.add(row("b.png", anomalous=True))
        assert "b.png" in second.done
    assert second.anomalous == 2
    assert paths(tmp_path) == ["a.png", "c.png", "b.png"]


def test_a_row_is_in_both_files_as_soon_as_it_is_added(tmp_path):
    with Results(tmp_path, RUN) as results:
        assert paths(tmp_path) == []
        for i in range(3):
            results.add(row(f"{i}.png"))
            assert paths(tmp_path) == [f"{j}.png" for j in range(i + 1)]


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_torn_last_line_is_dropped(tmp_path, cut):
    write(tmp_path, row("a.png"), row("b.png"))
    for name in ("predictions.jsonl", "predictions.csv"):
        file = tmp_path / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-cut])
        kept = {"a.png"} if name.endswith("jsonl") else {"a.png", "b.png"}
        assert write(tmp_path).done == kept
        assert set(paths(tmp_path)) == kept
        write(tmp_path, *[row("b.png")] * ("b.png" not in kept))
        assert file.read_bytes() == whole


def test_what_is_no_row_is_dropped_and_the_table_made_anew(tmp_path):
    """After a power cut, or an editor: lines of zeros, of other JSON, twice the same."""
    write(tmp_path, row("a.png"), row("b.png"))
    table = (tmp_path / "predictions.csv").read_bytes()
    lines = (tmp_path / "predictions.jsonl").read_bytes()
    strange = b"\0\0\0\n\n[]\n{}\n\xff\xfe\n" + b'{"path": "c.png"}\n'
    (tmp_path / "predictions.jsonl").write_bytes(strange + lines + lines + b"\0\0")
    (tmp_path / "predictions.csv").unlink()
    assert write(tmp_path).done == {"a.png", "b.png"}
    assert (tmp_path / "predictions.jsonl").read_bytes() == lines
    assert (tmp_path / "predictions.csv").read_bytes() == table


def test_ctrl_c_leaves_what_was_added(tmp_path):
    with pytest.raises(KeyboardInterrupt), Results(tmp_path, RUN) as results:
        results.add(row("a.png"))
        raise KeyboardInterrupt
    assert paths(tmp_path) == ["a.png"]
    assert write(tmp_path).done == {"a.png"}


def test_a_number_that_is_not_finite_is_not_written(tmp_path):
    with Results(tmp_path, RUN) as results:
        with pytest.raises(ValueError, match="not JSON compliant"):
            results.add(row(score=float("nan")))
        results.add(row("b.png"))
    assert paths(tmp_path) == ["b.png"]


def test_overlays_are_named_by_their_paths_alone(tmp_path):
    names = [
        "a/x.png",
        "b/x.png",
        "b/x.jpg",
        "b/X.png",
        "../../etc/passwd",
        "..",
        f"{'画' * 90}.png",
    ]
    names += ["b.png", "caf\udce9.png", f"{'𠀀' * 80}.png", "a b:c$.png"]
    picture = Image.new("RGB", (3, 2), (1, 2, 3))
    with Results(tmp_path, RUN) as results:
        for name in names:
            results.add(row(name), picture)
        files = [results.overlay_path(name) for name in names]
    written = sorted((tmp_path / "overlays").iterdir())
    assert sorted(files) == written
    assert len({file.name.casefold() for file in files}) == len(names)
    assert files[0].name == "x-" + files[0].name[2:14] + ".png"
    assert np.array_equal(Image.open(files[-1]), np.full((2, 3, 3), (1, 2, 3)))
    again = Results(tmp_path / "elsewhere", {})
    assert [again.overlay_path(name).name for name in names] == [file.name for file in files]


def test_overlays_are_written_in_threads_too(tmp_path):
    pictures = {f"{i % 3}/{i}.png": Image.new("L", (40, 30), i) for i in range(50)}
    with Results(tmp_path, RUN) as results:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(results.save_overlay, pictures, pictures.values()))
        files = [results.overlay_path(path) for path in pictures]
        results.add(row("0/0.png"))
    assert [np.asarray(Image.open(file)).max() for file in files] == list(range(50))
    assert sorted((tmp_path / "overlays").iterdir()) == sorted(files)


def test_a_folder_of_another_run_is_refused(tmp_path):
    write(tmp_path, row())
    other = RUN | {"model": "b" * 64, "threshold": 1.5, "temperature": 2}
    with pytest.raises(InputError) as caught:
        write(tmp_path, run=other)
    assert str(caught.value) == (
        f'{tmp_path} holds predictions of another run (model was "3fa93fa93fa93fa…, '
        'is now "bbbbbbbbbbbbbbb…, temperature was null, is now 2, threshold was 1.25, '
        "is now 1.5); choose another folder with --out=DIR, or delete this one"
    )
    assert paths(tmp_path) == ["a.png"]


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text('{"epochs": 3}')
    with pytest.raises(InputError, match=r"run holds the settings\.json of something else than"):
        write(tmp_path / "run")
    (tmp_path / "run" / "settings.json").write_text('{"epochs')
    with pytest.raises(InputError, match=r"settings\.json is damaged \(.*\); delete the folder$"):
        write(tmp_path / "run")
    (tmp_path / "run" / "settings.json").write_text("[]")
    with pytest.raises(InputError, match=r"settings\.json holds no settings; delete the folder"):
        write(tmp_path / "run")
    (tmp_path / "run" / "settings.json").unlink()
    (tmp_path / "run" / "predictions.csv").touch()
    with pytest.raises(
        InputError, match=r"holds predictions\.csv without its settings\.json; choo"
    ):
        write(tmp_path / "run")
    with pytest.raises(InputError, match=r"predictions\.csv is a file: choose a folder with --out"):
        write(tmp_path / "run" / "predictions.csv")


def test_two_commands_do_not_write_to_one_folder(tmp_path):
    code = (
        "import sys, pathlib; from adtr_jax.errors import InputError;"
        "from adtr_jax.evaluation.results import Results\n"
        "try:\n    Results(pathlib.Path(sys.argv[1]), {}).__enter__()\n"
        "except InputError as error:\n    print(error)"
    )
    with Results(tmp_path, {}):
        command = [sys.executable, "-c", code, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert re.fullmatch(
            rf"another command \(pid {os.getpid()} on {re.escape(platform.node())}, since "
            rf"20[\d: +-]+\) is using {tmp_path}: wait for it or stop it, or choose another folder "
            r"with --out\n",
            done.stdout,
        )
    assert subprocess.run(command, capture_output=True, check=True).stdout == b""


ENDLESS = """
import itertools, pathlib, sys
from PIL import Image
from adtr_jax.evaluation.results import PredictionRow, Results

picture = Image.effect_noise((60, 60), 50)
with Results(pathlib.Path(sys.argv[1]), {"model": "m"}) as results:
    for i in itertools.count():
        path = f"{i}.png"
        if path not in results.done:
            error = "cannot be read" if i % 7 == 3 else None
            row = PredictionRow(path, i % 2 == 0, 0.5, 0.5, i / 3, 1.0, (), error)
            results.add(row, picture)
            print(path, error or "", flush=True)
"""


def test_sigkill_loses_nothing_that_was_written_and_doubles_nothing(tmp_path):
    """A child appends rows and says so; it is killed ten times, at any moment, and goes on."""
    moments = random.Random(0)
    reported: set[str] = set()
    for _ in range(10):
        command = [sys.executable, "-c", ENDLESS, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            first = child.stdout.readline()  # opening, which takes longest, is over
            time.sleep(moments.uniform(0.0, 0.2))
            child.kill()
            lines = [first, *child.stdout.read().split("\n")]
        whole = [line.split(" ", 1) for line in lines if " " in line]
        reported |= {path for path, error in whole if not error.strip()}
        tried_again = {path for path, error in whole if error.strip()}
        with Results(tmp_path, {"model": "m"}) as results:
            pass
        kept = paths(tmp_path)
        assert len(kept) == len(set(kept))
        assert set(kept) == results.done
        assert reported <= results.done
        # At most one row more a kill: the one that was written and not yet reported.
        assert len(results.done - reported) <= 1
        reported = set(results.done)
        assert not tried_again & results.done
        assert all(results.overlay_path(path).stat().st_size > 1000 for path in kept)
    assert len(reported) > 50


def test_sigkill_while_the_folder_is_opened_loses_nothing(tmp_path):
    rows = [row(f"{i}.png") for i in range(3000)]
    write(tmp_path, *rows, failed(), run={"model": "m"})
    (tmp_path / "predictions.csv").write_bytes(b"")
    opening = ENDLESS.partition("    for i in")[0] + "    print('opened', flush=True)"
    command = [sys.executable, "-c", opening, str(tmp_path)]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    takes = time.perf_counter() - began
    write(tmp_path, failed(), run={"model": "m"})
    for moment in range(10):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
            time.sleep(takes * (0.5 + moment / 20))
            child.kill()
        lines = (tmp_path / "predictions.jsonl").read_bytes().split(b"\n")
        assert len([line for line in lines if b'"error": null' in line]) == 3000
    assert len(write(tmp_path, run={"model": "m"}).done) == 3000
    assert not list(tmp_path.glob(".*.part"))


def test_parts_that_a_kill_has_left_are_removed(tmp_path):
    write(tmp_path, row())
    for folder in ("overlays", "previews"):
        (tmp_path / folder / ".a.png.part").write_bytes(b"half")
    write(tmp_path, row("b.png"))
    assert not list(tmp_path.rglob("*.part"))
