"""MVTec-AD as published: its categories, and the archive that holds them."""

from adtr_jax.data.archive import Archive

HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"

CATEGORIES = (
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
)
# The two kinds of them, in the order of the papers' tables.
GROUPS = {
    "textures": ("carpet", "grid", "leather", "tile", "wood"),
    "objects": (
        *("bottle", "cable", "capsule", "hazelnut", "metal_nut"),
        *("pill", "screw", "toothbrush", "transistor", "zipper"),
    ),
}

# MVTec moves the file occasionally: the URL may change, the file may not.
ARCHIVE = Archive(
    url="https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/"
    "download/420938113-1629960298/mvtec_anomaly_detection.tar.xz",
    size=5_264_982_680,
    sha256="cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
)
