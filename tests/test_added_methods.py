"""A method that another package adds: found by its entry point, and used like one of ours."""

import json
import sys
from pathlib import Path

import pytest
from stripes import SIDE, call, run, write_category

import adtr_jax
from adtr_jax.detectors.header import Header
from adtr_jax.detectors.methods import METHODS, PRESETS
from adtr_jax.errors import InputError

METHOD = """
from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx

from adtr_jax.config import AdtrSettings
from adtr_jax.detectors.adtr import AdtrDetector
from adtr_jax.detectors.features import channels
from adtr_jax.detectors.methods import Method


@dataclass(frozen=True, kw_only=True)
class TemplateSettings(AdtrSettings):
    method = "template"
    start: float = 0.0
    \"\"\"What every value of the template is at first.\"\"\"


class Template(nnx.Module):
    # Whatever the features are, f_hat is what is learned for each position.
    def __init__(self, side, channels, start):
        self.f_hat = nnx.Param(jnp.full((side, side, channels), start))

    def __call__(self, f, seed=None):
        return jnp.broadcast_to(self.f_hat[...], f.shape)


class TemplateDetector(AdtrDetector):
    @staticmethod
    def model(backbone, settings, rngs):
        c = channels(backbone, settings.layers)
        return Template(settings.tokens_per_side, c, settings.start)


SMALL = TemplateSettings(
    backbone="pixels", layers=(4,), image_size=64, standardise=True, epochs=30, batch_size=8,
    learning_rate=0.05, image_score="top",
)
template = Method(
    "Template", TemplateSettings, {"paper": SMALL, "fast": SMALL, "best": SMALL},
    lambda: TemplateDetector,
)
"""
POINTS = """[adtr_jax.methods]
template = methods_of_others:template
other = methods_of_others:template
missing = methods_of_others:missing
"""


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The folder of an installed package, on Python's path."""
    (tmp_path / "methods_of_others.py").write_text(METHOD)
    info = tmp_path / "methods_of_others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: methods-of-others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("methods_of_others", None)


def test_an_added_method_is_one_like_ours(package, tmp_path, monkeypatch):
    assert SIDE == 64
    assert "template" in METHODS and "methods_of_others" not in sys.modules
    data = tmp_path / "data"
    write_category(data / "stripes", wide=8)
    flags = ["--category=stripes", f"--data={data}", f"--out={tmp_path / 'out'}", "--pictures=0"]
    done = call("--method=template", "--start=0.5", *flags)
    assert done.returncode == 0, done.stderr
    assert "Template\n" in done.stdout
    metrics = json.loads((tmp_path / "out/stripes/metrics.json").read_text())
    assert metrics["image_auroc"] == 1.0 and metrics["pixel_auroc"] > 0.95
    model = adtr_jax.load(tmp_path / "out/stripes")
    assert model.settings.start == 0.5 and model.settings.method == "template"
    file, photos = tmp_path / "m.adtr", str(data / "stripes/train/good")
    monkeypatch.setenv("PYTHONPATH", str(package))
    done = run("fit", photos, "--method=template", f"--out={file}", module="adtr_jax")
    assert done.returncode == 0, done.stderr
    fitted = adtr_jax.load(file)
    assert fitted.predict(data / "stripes/test/noise/016.png").anomalous
    header = Header(settings=fitted.settings, backbone_sha256="").to_json()
    assert Header.of_json(header).settings == fitted.settings
    monkeypatch.undo()
    with pytest.raises(InputError, match="the method template, which no installed package adds"):
        Header.of_json(header)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "other",
            "methods_of_others:template is no adtr_jax.detectors.methods.Method of",
        ),
        (
            "missing",
            r"cannot be had from methods_of_others:missing \(module 'methods_of_",
        ),
        ("templat", "no method is called templat: did you mean template"),
    ],
)
def test_what_is_no_method_is_one_line(package, name, message):
    with pytest.raises(InputError, match=message):
        _ = PRESETS[name]


def test_an_unknown_method_is_one_line():
    done = call("--method=gtran", "--category=x")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no method is called gtran: did you mean gtrans?")
