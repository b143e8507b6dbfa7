"""What an installation holds."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import adtr_jax
from adtr_jax.html_report import page

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.Path:
    """The wheel, built from a copy of the checkout: setuptools writes into the folder it builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("adtr_jax", "benchmarks", "conversion", "experiments", "tests", "weights"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)
    (file,) = out.glob("*.whl")
    return zipfile.Path(file)


def test_a_wheel_holds_the_commands_and_neither_tests_nor_benchmarks(wheel):
    info = f"adtr_jax-{adtr_jax.__version__}.dist-info"
    assert {path.name for path in wheel.iterdir()} == {
        *("adtr_jax", "conversion", "experiments", "weights"),
        info,
    }
    assert {path.name for path in (wheel / "weights").iterdir()} == {"__init__.py", "manifest.toml"}
    for package in ("adtr_jax", "conversion", "experiments"):
        assert (wheel / package / "py.typed").is_file()
    assert (wheel / "experiments/papers/adtr.py").is_file()
    for name in ("page.html", "style.css", *(f"{script}.js" for script in page.SCRIPTS)):
        assert (wheel / "adtr_jax/html_report" / name).is_file()
    metadata = (wheel / info / "METADATA").read_text("utf-8")
    assert re.findall("^Project-URL: (.*?),", metadata, re.M) == [
        *("Documentation", "Source", "Changelog", "Issues")
    ]


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    cited = re.findall(r"^version: (.*)\ndate-released: (.*)", citation, re.M)
    assert cited == re.findall(r"^## \[(.*)\] - (.*)", changes, re.M)[:1]
    assert cited[0][0] == adtr_jax.__version__
