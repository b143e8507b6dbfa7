"""Small generated images in MVTec layout, and the commands run on them as a user types them."""

import io
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from adtr_jax.training import train

ROOT = Path(__file__).resolve().parents[1]
SIDE = 64
# The shallower the layers are, the less of the backbone there is to compile.
SMALL = ["--backbone=efficientnet-lite0", f"--image_size={SIDE}", "--preset=fast", "--epochs=6"]
SMALL += ["--layers", "1", "2", "3"]
SHALLOW = [*SMALL, "--depth=1"]  # ADTR: each of its layers takes seconds to compile


def command(module: str, *arguments: str) -> list[str]:
    """A command as a user types it, to be run in ROOT."""
    return [sys.executable, "-m", module, *arguments]


def script(name: str, *arguments: str) -> list[str]:
    """A file beside this one, to be run in ROOT."""
    return [sys.executable, str(Path(__file__).with_name(name)), *arguments]


def run(
    *arguments: str, module: str = "experiments.mvtec", devices: int = 1
) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own, on so many simulated devices."""
    return subprocess.run(
        command(module, *arguments),
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def call(
    *arguments: str,
    module: str = "experiments.mvtec",
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command in this process, where JAX is imported already.

    Unlike in a process of its own, an unexpected exception is raised, and a warning is one.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "argv", [module, *arguments])
        patch.setattr(train, "SAVE_SECONDS", train.SAVE_SECONDS)  # put back what the module sets
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        patch.chdir(ROOT)
        # One command may import another, which `python -m` does not do before it runs the first.
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
        status: object = 0
        try:
            with redirect_stdout(out), redirect_stderr(err):
                runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            status = ended.code
    return subprocess.CompletedProcess(
        [module, *arguments], cast(int, status), out.getvalue(), err.getvalue()
    )


def save(path: Path, pixels: np.ndarray) -> None:
    """Writes an image, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_category(folder: Path, wide: float, *, masks: bool = True) -> None:
    """16 normal images of noisy stripes to train on; 8 to test on, and the same with a noisy patch.

    Args:
        folder: the category's folder.
        wide: the stripes' width.
        masks: whether the patches have masks.
    """
    rng = np.random.default_rng(0)
    pattern = (127 + 60 * np.sin(np.arange(SIDE) / wide * 3))[None, :, None]
    for i in range(24):
        noisy = pattern + rng.normal(0, 12, (SIDE, SIDE, 3))
        image = np.clip(noisy, 0, 255).astype(np.uint8)
        if i < 16:
            save(folder / "train/good" / f"{i:03}.png", image)
            continue
        save(folder / "test/good" / f"{i:03}.png", image)
        broken, mask = image.copy(), np.zeros((SIDE, SIDE), np.uint8)
        broken[20:36, 24:44] = rng.integers(0, 255, (16, 20, 3))
        mask[20:36, 24:44] = 255
        save(folder / "test/noise" / f"{i:03}.png", broken)
        if masks:
            save(folder / "ground_truth/noise" / f"{i:03}_mask.png", mask)
