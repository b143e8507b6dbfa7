"""Where converted weights are kept."""

import os
from pathlib import Path

from adtr_jax.errors import InputError

VARIABLE = "ADTR_JAX_WEIGHTS"
ROOT = Path(__file__).resolve().parent.parent


def weights_folder(root: Path = ROOT) -> Path:
    """The folder of converted weights where none is named.

    It is what the environment variable `ADTR_JAX_WEIGHTS` says (`~` is the home folder, and a
    relative path starts at the current one), else `weights/` in a checkout. An installation has
    the user's cache folder: its own may be read-only, and the next upgrade would empty it.

    Args:
        root: the folder that holds the packages; in a checkout, setup.cfg lies beside them.

    Raises:
        InputError: `ADTR_JAX_WEIGHTS` names something that is not a folder.
    """
    named = os.environ.get(VARIABLE)
    if named:
        folder = Path(os.path.expanduser(named))
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{VARIABLE}={named} is not a folder; set it to one, or to a new path")
        return folder
    if (root / "setup.cfg").is_file():
        return root / "weights"
    from platformdirs import user_cache_path

    return user_cache_path("adtr_jax") / "weights"
