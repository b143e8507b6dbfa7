"""Where converted weights are kept."""

from pathlib import Path

import pytest

from adtr_jax.errors import InputError
from conversion import weights_folder
from conversion.__main__ import main

ROOT = Path(__file__).resolve().parents[1]


def test_weights_of_a_checkout_are_in_it(monkeypatch):
    monkeypatch.delenv("ADTR_JAX_WEIGHTS", raising=False)
    assert weights_folder() == ROOT / "weights"


def test_weights_of_an_installation_are_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("ADTR_JAX_WEIGHTS", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    assert weights_folder(tmp_path) == tmp_path / "cache/adtr_jax/weights"


def test_the_environment_names_the_folder_of_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for named, folder in {
        str(tmp_path): tmp_path,
        "~/weights": tmp_path / "weights",
        "weights/mine": Path("weights/mine"),
        "": ROOT / "weights",
    }.items():
        monkeypatch.setenv("ADTR_JAX_WEIGHTS", named)
        assert weights_folder() == folder


def test_help_shows_the_folder(monkeypatch, capsys):
    monkeypatch.setenv("ADTR_JAX_WEIGHTS", "mine")
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--help"])
    assert "The folder for the converted file. (default: mine)" in capsys.readouterr().out


def test_an_environment_that_names_a_file(monkeypatch, tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("ADTR_JAX_WEIGHTS", str(file))
    error = f"ADTR_JAX_WEIGHTS={file} is not a folder; set it to one, or to a new path"
    with pytest.raises(InputError, match=f"^{error}$"):
        weights_folder()
    assert main(["efficientnet-lite0"]) == 2
    assert capsys.readouterr().err == f"error: {error}\n"
