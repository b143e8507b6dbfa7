"""Compiled programs are kept from one process to the next, a folder a kind of processor."""

import os
import subprocess
import sys
from pathlib import Path

from stripes import ROOT

from adtr_jax.devices.compile_cache import processor

CODE = """
import jax, jax.numpy as jnp
from adtr_jax.devices.compile_cache import keep_compiled_programs
keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
print(jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.ones((20, 20))))
print(sum("cache_hits" in event for event in hits), jax.config.jax_compilation_cache_dir)
"""


def run(home: Path, **more: str) -> list[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=kept | {"XDG_CACHE_HOME": str(home), "HOME": str(home)} | more,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_second_process_compiles_nothing(tmp_path):
    first, second = run(tmp_path), run(tmp_path)
    assert first[0] == second[0]
    folder = tmp_path / "adtr_jax/programs" / processor()
    assert first[1] == f"0 {folder}"
    assert int(second[1].split()[0]) > 0 and second[1].endswith(str(folder))


def test_a_choice_of_the_users_stays(tmp_path):
    own = tmp_path / "own"
    assert run(tmp_path, JAX_COMPILATION_CACHE_DIR=str(own))[1] == f"0 {own}"
    off = run(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false")
    assert off[1] == "0 None"


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "adtr_jax").write_text("a file")
    assert run(tmp_path)[1] == "0 None"


def test_another_processor_has_another_folder(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name : A\nflags : avx\ncpu MHz : 1\n")
    first = processor(cpuinfo)
    cpuinfo.write_text("model name : A\nflags : avx\ncpu MHz : 2\n")
    assert processor(cpuinfo) == first
    cpuinfo.write_text("model name : A\nflags : avx avx512f\ncpu MHz : 1\n")
    assert processor(cpuinfo) != first
