"""Programs over devices: how they are compiled, and what they take at once."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from adtr_jax.config import AdtrSettings
from adtr_jax.detectors import extraction
from adtr_jax.devices.sharding import (
    compiler_options,
    device_mesh,
    per_device,
    replicated,
    split,
    workers,
)

FLAG = "--xla_force_host_platform_device_count"


def test_a_cpu_gets_its_matrix_products_from_eigen():
    program = per_device(jnp.matmul, device_mesh(1), (split(), replicated), split())
    x = jnp.ones((4096, 256))
    text = program.lower(x, x[:256]).compile().as_text()
    assert " dot(" in text and "ynn" not in text


def test_a_gpu_gets_its_matrix_products_from_cublas():
    # Empty where this version of XLA, whose options are the same on all platforms, has none such.
    assert compiler_options("gpu") == {"xla_gpu_enable_triton_gemm": False}


@pytest.mark.parametrize(("size", "images"), [(32, 64), (160, 2), (256, 1), (1024, 1)])
def test_a_cpu_takes_one_image_or_a_few_at_once(size, images):
    settings = AdtrSettings(image_size=size)
    assert extraction.images_at_once(settings, device_mesh(1)) == images


@pytest.mark.parametrize(("stride", "images"), [(16, 64), (4, 16), (2, 4), (1, 1)])
def test_many_tokens_count_as_large_images(stride, images):
    settings = AdtrSettings(image_size=32, token_stride=stride)
    assert extraction.images_at_once(settings, device_mesh(1)) == images


def test_a_cpu_is_trained_on_as_one_device_and_computes_as_all():
    assert len(jax.devices()) == 2
    assert device_mesh().size == device_mesh(1).size == 1
    assert device_mesh(2).size == workers(device_mesh(1)).size == 2


@pytest.mark.parametrize(("flags", "devices"), [("", "cores"), (FLAG + "=3", "3")])
def test_a_core_is_a_device_unless_a_number_is_given(flags, devices):
    text = (
        "import jax, os; from adtr_jax.devices.sharding import one_device_a_core as each;"
        "each(); cores = min(len(os.sched_getaffinity(0)), 16); print(jax.device_count(), cores);"
        "each()"  # the second time changes nothing
    )
    environment = os.environ | {"XLA_FLAGS": flags}
    words = [sys.executable, "-c", text]
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    found, cores = done.stdout.split()
    assert found == (cores if devices == "cores" else devices)
