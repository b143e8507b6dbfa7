"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

# The files that take longest, the longest first. Where the files are shared out over processes,
# none of these is then begun when all others are done, to keep one process busy while others wait.
LONGEST = (
    "test_experiments",
    "test_train",
    "test_experiments_plus",
    "test_experiments_cifar10",
    "test_experiments_gtrans",
    "test_reproduce",
    "test_notebooks",
    "test_composition",
    "test_hosts",
    "test_kills",
    "test_ray_predict",
    "test_backbones",
    "test_resnet",
    "test_ablation_models",
    "test_gtrans_detector",
    "test_one_layer_study",
    "test_html_report_browser",
)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Lets all tests, and the commands that they start, share what JAX compiles."""
    cache = Path(config.rootpath) / ".pytest_cache" / "jax"
    # JAX has been imported and has read the environment, which is for the commands.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_num_cpu_devices", 2)  # as in the commands, whatever the machine
    # pytest-xdist would begin with the files of the most tests, which are the quickest.
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the checkout; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real images are not at hand: no shared/data beside the checkout")
    return SHARED_DATA


@pytest.fixture(scope="module")
def soon_compiled() -> Iterator[None]:
    """Programs need not be fast where compiling them is what takes the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
