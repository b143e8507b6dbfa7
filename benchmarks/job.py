"""One job in a process of its own, whose time and memory are measured from outside.

python -m benchmarks.job {jax,torch} {first,predict,train} FOLDER: does the job with what `prepare`
wrote to FOLDER, and prints one line of JSON.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.images import random_images, write_images
from benchmarks.sizes import Sizes

if TYPE_CHECKING:  # a job imports one of the two
    from adtr_jax.detectors.detector import Detector
    from benchmarks.torch_pipeline import TorchPipeline

SIZES, MODEL, PIPELINE, IMAGES = "sizes.json", "model.safetensors", "pipeline.pt", "images"
ROOT = Path(__file__).resolve().parents[1]


def prepare(folder: Path, sizes: Sizes) -> None:
    """Writes what the jobs need: sizes, both libraries' weights, and image files."""
    import torch

    from adtr_jax.detectors import model_file
    from benchmarks.same_weights import pair

    ours, theirs = pair(sizes, folder)
    model_file.save(ours, folder / MODEL)
    torch.save(theirs.state_dict(), folder / PIPELINE)
    sizes.save(folder / SIZES)
    (folder / IMAGES).mkdir()
    write_images(folder / IMAGES, max(sizes.prediction_batches), sizes.file_size)


def run(
    library: str, job: str, folder: Path, environment: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Runs a job in a process of its own and returns its report.

    Args:
        library: `jax` or `torch`.
        job: `first`, the score of the first image file; `predict`, of a whole batch; `train`, a
            whole training with cached features.
        folder: what `prepare` wrote.
        environment: additional variables of the process.

    Returns:
        `result`, the first image's score, or the number of training images; `peak_mib`, the
        process's peak memory in MiB.

    Raises:
        subprocess.CalledProcessError: it failed; its errors are on stderr.
    """
    words = [sys.executable, "-m", "benchmarks.job", library, job, str(folder)]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(words, cwd=ROOT, env=variables, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def predict_first(folder: Path, environment: Mapping[str, str]) -> None:
    """Runs the command `adtr-jax predict` on the first image file."""
    words = [sys.executable, "-m", "adtr_jax", "predict", str(folder / MODEL)]
    words += map(str, _files("first", folder))
    with TemporaryDirectory() as out:
        words += [f"--out={out}/results", f"--weights={folder}"]
        variables = os.environ | environment
        subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, check=True)


def detector(folder: Path) -> "Detector":
    from adtr_jax.detectors import model_file

    return model_file.load(folder / MODEL, folder).detector


def pipeline(folder: Path) -> "TorchPipeline":
    import torch

    from benchmarks import torch_pipeline

    made = torch_pipeline.pipeline(Sizes.load(folder / SIZES))
    made.load_state_dict(
        torch.load(folder / PIPELINE, weights_only=True, map_location=torch_pipeline.DEVICE)
    )
    return made


def of_jax(job: str, folder: Path) -> float:
    from adtr_jax.devices.sharding import one_device_a_core
    from benchmarks import jax_pipeline

    one_device_a_core()
    sizes = Sizes.load(folder / SIZES)
    if job == "train":
        images = random_images(sizes.images, sizes.image_size)
        jax_pipeline.training(detector(folder), images)
        return len(images)
    return float(jax_pipeline.predict(detector(folder), _files(job, folder))[1][0])


def of_torch(job: str, folder: Path) -> float:
    import torch

    from benchmarks import torch_pipeline

    sizes, made = Sizes.load(folder / SIZES), pipeline(folder)
    if job == "train":
        images = torch.from_numpy(random_images(sizes.images, sizes.image_size))
        images = images.to(torch_pipeline.DEVICE)
        torch_pipeline.train((made.features, made.model), images, sizes, cached=True)
        return len(images)
    with torch.inference_mode(), torch_pipeline.precision(sizes):
        _, scores = made(torch_pipeline.read(_files(job, folder), sizes.image_size))
    return float(scores[0])


def peak_mib() -> float:
    """Returns this process's peak memory in MiB.

    On Linux from VmHWM, because a process inherits `ru_maxrss` from the one that starts it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _files(job: str, folder: Path) -> list[Path]:
    files = sorted((folder / IMAGES).iterdir())
    return files[:1] if job == "first" else files


if __name__ == "__main__":
    _library, _job, _folder = sys.argv[1:]
    if _library == "jax":
        # tensorboardX imports PyTorch if installed, which it is not for users of the project.
        sys.modules["torch"] = None  # type: ignore[assignment]
    _result = {"jax": of_jax, "torch": of_torch}[_library](_job, Path(_folder))
    print(json.dumps({"result": _result, "peak_mib": peak_mib()}), flush=True)
