"""What the experiments download by themselves, and before any of them runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adtr_jax.backbones import PIXELS, is_added

CifarName = Literal["cifar10", "cifar100"]
_CIFAR: dict[CifarName, tuple[str, int]] = {  # their archives' sizes
    "cifar10": ("CIFAR-10", 170_498_071),
    "cifar100": ("CIFAR-100", 169_001_437),
}


@dataclass(frozen=True)
class Needed:
    """What jobs need that may have to be downloaded.

    Attributes:
        networks: their weights.
        weights: the folder of these.
        categories: of MVTec-AD; none, if the images are another folder's.
        cifar: the data sets that are not read from a file or folder.
    """

    networks: Sequence[str]
    weights: Path
    categories: Sequence[str]
    cifar: Sequence[CifarName]

    def missing(self) -> Iterable[tuple[str, str]]:
        """Yields what is missing, with its size."""
        if self.categories and _mvtec_ad_is_missing(self.categories):
            from adtr_jax.data.mvtec_ad_archive import ARCHIVE

            yield "MVTec-AD", f"{ARCHIVE.size:,} bytes, 11 GB with what is unpacked"
        if self.cifar:
            import tensorflow_datasets as tfds

            for name in self.cifar:
                if not tfds.builder(name).data_path.exists():
                    title, size = _CIFAR[name]
                    yield title, f"{size:,} bytes"
        for network in self.networks:
            if not _is_there(network, self.weights):
                yield f"weights of {network}", _checkpoint_size(network)

    def fetch(self) -> None:
        """Downloads what is missing: several jobs at a time would get in each other's way.

        Raises:
            InputError: it is not to be had.
        """
        from adtr_jax.data import mvtec_ad, tfds_images
        from conversion import ensure

        for network in self.networks:
            if not _is_there(network, self.weights):
                ensure(network, self.weights)
        for category in self.categories:
            mvtec_ad.read_category(category)
        for name in self.cifar:
            tfds_images.read(name)


def _is_there(network: str, weights: Path) -> bool:
    """Of a network of another package `backbones.load` says what to do."""
    own = network == PIXELS or is_added(network)
    return own or (weights / f"{network}.safetensors").is_file()


def _mvtec_ad_is_missing(categories: Sequence[str]) -> bool:
    from adtr_jax.data import mvtec_ad_builder
    from adtr_jax.data.mvtec_ad_archive import ARCHIVE

    builders = [mvtec_ad_builder.builder_of(category, None) for category in categories]
    if all(builder.data_path.exists() for builder in builders):
        return False
    downloads = Path(builders[0].data_dir_root) / "downloads"
    files = [*downloads.glob("*"), *downloads.glob("manual/*")]
    return not any(file.is_file() and file.stat().st_size == ARCHIVE.size for file in files)


def _checkpoint_size(network: str) -> str:
    import jax
    from flax import nnx

    from adtr_jax import backbones
    from conversion import manifest

    entry = manifest.entry(network)
    if entry.package:
        return f"comes with the package {entry.package}"
    if entry.size:
        return f"{entry.size:,} bytes"
    # In float32 the file holds little else.
    leaves = jax.tree.leaves(nnx.state(backbones.shapes(network)))
    return f"about {round(sum(4 * leaf.size for leaf in leaves) / 1e6)} MB"
