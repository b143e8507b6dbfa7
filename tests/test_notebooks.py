"""The notebooks run from top to bottom, as in Colab, with few steps of small networks."""

import os
import re
import sys
from pathlib import Path

import pytest
from stripes import ROOT

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path: Path):
    return nbformat.read(path, as_version=4)


def text_of(notebook) -> str:
    """All that the cells have printed or returned as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(
        output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs
    )


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder to run in, in which the scripts of a checkout are found."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    programs = tmp_path / "bin"  # `!python` and `!adtr-jax` are those of this environment
    programs.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "adtr-jax").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m adtr_jax "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("STEPS", "4")
    return tmp_path


# What compiles in seconds: the first blocks of a network, and one layer of a transformer.
SMALLER = {
    "first_steps": {"max_steps=STEPS": "max_steps=STEPS, layers=(1, 2), depth=1"},
    "your_own_parts": {"--max_steps={STEPS}": "--max_steps={STEPS} --layers 1 2 --depth=1"},
    "papers": {
        "lite2 --image_size=128": "lite0 --image_size=64 --layers 1 2 --pictures=1",
        "{PLUS}": "{PLUS} --plus.variants=1 --depth=1",
        "gtrans {": "gtrans --blocks=1 {",
    },
}
SAID = {
    "first_steps": ("470 good cells to learn from; 431 to test on", "asked 10%, promised 9.5%"),
    "your_own_parts": ("152 good ones, 24 new ones", "24 images;", "report.html", "parts.onnx"),
    "papers": ("ADTR+", "GTrans", "brick_wall", "report.html", "GTrans-R34"),
}


def test_all_notebooks_are_here():
    assert [path.stem for path in NOTEBOOKS] == sorted(SAID)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, checkout):
    pytest.importorskip("elpv_dataset" if path.stem == "first_steps" else "skimage")
    notebook = read(path)
    for ours, smaller in SMALLER[path.stem].items():
        assert sum(ours in cell.source for cell in notebook.cells) == 1
        for cell in notebook.cells:
            cell.source = cell.source.replace(ours, smaller)
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(checkout)}}
    ).execute()
    text = text_of(notebook)
    for words in SAID[path.stem]:
        assert words in text
    assert "Traceback" not in text and "error:" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_but_no_pictures_that_are_not_ours(path):
    notebook = read(path)
    name = f"adtr-jax/adtr_jax/blob/main/notebooks/{path.name}"
    assert f"colab.research.google.com/github/{name}" in notebook.cells[0].source
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert "def " not in cell.source and "class " not in cell.source
            ours = "pictures-of-the-data-set" not in cell.metadata.get("tags", ())
            assert ours or not cell.outputs
            assert cell.execution_count or not ours
    assert path.stat().st_size < 3_000_000
    assert not re.search(r"(^|[\s'\"])/\w+/", text_of(notebook))  # a folder of one's machine
