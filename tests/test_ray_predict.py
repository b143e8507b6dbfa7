"""The example for a cluster, on a local Ray: predict's rows, whatever is killed."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from stripes import ROOT, write_category

import adtr_jax
from adtr_jax.config import AdtrSettings

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
SETTINGS = AdtrSettings(
    backbone="pixels", layers=(4,), image_size=64, width=32, heads=4, depth=1, hidden=64,
    max_steps=10, batch_size=4, dropout=0.0,
)  # fmt: skip


def started(folder: Path) -> subprocess.Popen[str]:
    words = [sys.executable, str(ROOT / "examples/ray_predict.py"), "model.adtr", "images", "out"]
    return subprocess.Popen(
        [*words, "--batch_size=10"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_an_actor(job: subprocess.Popen[str], out: Path) -> None:
    """Kills one once some rows, and not all, are written."""
    end = time.monotonic() + 240
    while time.monotonic() < end and job.poll() is None:
        actors = [
            child
            for child in psutil.Process(job.pid).children(recursive=True)
            if "Scorer" in " ".join(child.cmdline())
        ]
        if actors and len(list(out.glob("*.parquet"))) >= 2:
            actors[0].kill()
            return
        time.sleep(0.05)
    pytest.fail(f"nothing to kill: {job.communicate()}")


def counts(job: subprocess.Popen[str]) -> tuple[int, int]:
    """The images that it has scored, and those that had been; among what Ray says."""
    printed, said = job.communicate(timeout=300)
    assert job.returncode == 0, said
    found = re.search(r"(\d+) images scored, (\d+) were already", printed)
    assert found, printed
    return int(found[1]), int(found[2])


def test_rows_are_those_of_predict_though_an_actor_dies(tmp_path):
    pytest.importorskip("ray")
    parquet = pytest.importorskip("pyarrow.parquet")
    write_category(tmp_path / "stripes", wide=8)
    model = adtr_jax.fit(tmp_path / "stripes", SETTINGS, out=tmp_path / "model.adtr")
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(150):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(images / f"{i:03}.png")
    (images / "broken.png").write_bytes(b"no image")

    job = started(tmp_path)
    kill_an_actor(job, tmp_path / "out")
    assert counts(job) == (151, 0)
    rows = parquet.read_table(tmp_path / "out").to_pylist()
    expected = {found.path: found for found in model.predict(images)}
    assert len(rows) == 151 and {row["path"] for row in rows} == set(expected)
    for row in rows:
        found = expected[row["path"]]
        assert (row["error"] is None) == (found.error is None)
        assert row["anomalous"] == found.anomalous
        if found.error is None:
            assert row["raw_score"] == pytest.approx(found.raw_score, rel=1e-5)
            assert row["p_value"] == pytest.approx(found.p_value)

    # What has a row is not scored again; a file that was cut off is made anew.
    next((tmp_path / "out").glob("*.parquet")).write_bytes(b"PAR1")
    job = started(tmp_path)
    again, kept = counts(job)
    assert again + kept == 151 and 1 <= again <= 10
    rows = parquet.read_table(tmp_path / "out").to_pylist()
    assert sorted(row["path"] for row in rows) == sorted(expected)
