"""Scores any number of images on a cluster: Ray Data reads them, actors score them, Parquet out.

pip install 'adtr_jax[ray]'
python examples/ray_predict.py bolt.adtr s3://bucket/photos scores --actors=8 --gpus=1

The same command goes on where it was stopped, and scores what has arrived since.
"""

import argparse
import os

import pyarrow as pa
import ray
from pyarrow import fs, parquet

import adtr_jax

TYPES = {"anomalous": pa.bool_(), "score": pa.float64(), "p_value": pa.float64()}
TYPES |= {"raw_score": pa.float64(), "threshold": pa.float64(), "error": pa.string()}


class Scorer:
    """One loaded model an actor; a model in ONNX needs no JAX there."""

    def __init__(self, model: str):
        self.model = adtr_jax.load(model)

    def __call__(self, batch: pa.Table) -> pa.Table:
        found = list(self.model.predict(batch["bytes"].to_pylist()))
        columns = [pa.array([getattr(f, name) for f in found], TYPES[name]) for name in TYPES]
        return pa.table([batch["path"], *columns], ["path", *TYPES])


def files(place: str) -> tuple[fs.FileSystem, list[str]]:
    """All files below a folder or bucket, and the system that has them."""
    local = (fs.LocalFileSystem(), os.path.abspath(place))
    system, path = fs.FileSystem.from_uri(place) if "://" in place else local
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
    return system, [file.path for file in found if file.is_file]


def scored(out: str) -> set[str]:
    """The images that have a row; a file that was cut off when all was killed is deleted."""
    system, paths = files(out)
    done: set[str] = set()
    for path in paths:
        try:
            rows = parquet.read_table(path, columns=["path"], filesystem=system)
            done.update(rows["path"].to_pylist())
        except pa.ArrowInvalid:
            system.delete_file(path)
    return done


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Score images on a cluster, with Ray.")
    parser.add_argument("model", help="a model's file, which every machine can read")
    parser.add_argument("images", help="a folder or bucket")
    parser.add_argument("out", help="a folder or bucket for Parquet files")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--gpus", type=float, default=0, help="of each actor")
    parser.add_argument("--batch_size", type=int, default=64)
    args = parser.parse_args()
    system, images = files(args.images)
    if new := sorted(set(images) - scored(args.out)):
        blocks = -(-len(new) // args.batch_size)  # what is lost, and done again, if one is killed
        ray.data.read_binary_files(
            new, filesystem=system, include_paths=True, override_num_blocks=blocks
        ).map_batches(
            Scorer,
            fn_constructor_args=(args.model,),
            compute=ray.data.ActorPoolStrategy(size=args.actors),
            batch_format="pyarrow",
            num_cpus=0.5,  # leaves some to reading and writing
            num_gpus=args.gpus,
        ).write_parquet(os.path.abspath(args.out) if "://" not in args.out else args.out)
    print(f"{len(new)} images scored, {len(images) - len(new)} were already")
