"""CIFAR's batches and archives, IDX files, and zip files of classes."""

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from adtr_jax.data import Sample, image_sources, load_images
from benchmarks.fuzz import formats
from benchmarks.fuzz.pictures import SIDE, encoded, picture
from benchmarks.fuzz.reader import Files, digest


def cifar() -> dict[str, Files]:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 2, 3072), np.uint8)
    names = [f"class {index}".encode() for index in range(10)]
    batches = [f"data_batch_{index + 1}" for index in range(5)] + ["test_batch"]
    made: dict[str, Files] = {}
    for protocol in (2, 5):
        files = {
            f"cifar-10-batches-py/{batch}": pickle.dumps(
                {b"labels": [index, index + 1], b"data": pixels[index]}, protocol
            )
            for index, batch in enumerate(batches)
        }
        files["cifar-10-batches-py/batches.meta"] = pickle.dumps({b"label_names": names}, protocol)
        made[f"folder{protocol}"] = files
        made[f"archive{protocol}"] = {"cifar.tar.gz": gzip.compress(formats.tar_of(files), 1)}
    return made


def idx() -> dict[str, Files]:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    labels = np.arange(6, dtype=np.uint8)
    files = {}
    for prefix in ("train", "t10k"):
        header = bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in images.shape)
        files[f"{prefix}-images-idx3-ubyte"] = header + images.tobytes()
        files[f"{prefix}-labels-idx1-ubyte"] = bytes((0, 0, 8, 1, 0, 0, 0, 6)) + labels.tobytes()
    packed = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    return {"plain": files, "packed": packed}


def zipped() -> dict[str, Files]:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(4):
            name = f"set/{('train', 'test')[index % 2]}/{'ab'[index // 2]}/{index}.png"
            archive.writestr(name, encoded(Image.fromarray(picture(8, 8 + index)), "PNG"))
    return {"set.zip": {"set.zip": stream.getvalue()}}


def read_classes(folder: Path) -> str:
    archives = [path for path in folder.iterdir() if path.suffix in (".gz", ".zip")]
    images = image_sources.read(archives[0] if len(archives) == 1 else folder)
    samples = [
        Sample(f"{split}/{name}", file, name)
        for (split, name), group in images.files.items()
        for file in group
    ]
    return digest(images.classes, [s.name for s in samples], load_images(samples, SIDE))
