"""A folder with one folder a product, which one model is trained on together."""

from pathlib import Path

from adtr_jax.data.layout import IMAGE_SUFFIXES, SYSTEM_FOLDERS
from adtr_jax.errors import InputError


def product_folders(folder: Path) -> dict[str, Path]:
    """Lists the folders of products in a folder, by name; each as `good_images.files` takes it.

    Raises:
        InputError: it is no folder, or holds fewer than two, or images beside them.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}: give a folder with one folder a product")
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = {p.name: p for p in inside if p.is_dir() and p.name not in SYSTEM_FOLDERS}
    if len(found) < 2 or "train" in found:
        raise InputError(
            f"--unified: {folder} holds no folders of several products, but "
            f"{', '.join(found) or 'none'}: give the folder that they are in, or leave it out"
        )
    loose = [path.name for path in inside if path.suffix.lower() in IMAGE_SUFFIXES]
    if loose:
        raise InputError(
            f"--unified: {folder} holds images beside the folders of the products, such as "
            f"{loose[0]}: move them into their product's"
        )
    return found
