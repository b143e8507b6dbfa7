"""Several masks of one image as one file: a pixel is anomalous where any of them marks it."""

import io
from dataclasses import dataclass

from PIL import Image

from adtr_jax.data.mask_file import decode_mask
from adtr_jax.data.samples import File
from adtr_jax.errors import InputError


@dataclass(frozen=True)
class MaskUnion:
    """A `File` of the union of masks, as MVTec LOCO AD has one a defect."""

    files: tuple[File, ...]

    def read_bytes(self) -> bytes:
        """Return the union as a PNG file.

        Raises:
            InputError: as in `decode_mask`, or if the masks differ in size.
        """
        first, *others = self.files
        union = decode_mask(first)
        for file in others:
            mask = decode_mask(file)
            if mask.shape != union.shape:
                (h, w), (rows, columns) = mask.shape, union.shape
                raise InputError(
                    f"{file} is {w} x {h} pixels, and {first}, of the same image, "
                    f"{columns} x {rows}: draw all masks at the image's size"
                )
            union |= mask
        stream = io.BytesIO()
        Image.fromarray(union).save(stream, "PNG")
        return stream.getvalue()

    def __str__(self) -> str:
        return f"{self.files[0]} (and {len(self.files) - 1} more)"
