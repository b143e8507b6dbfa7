"""Data and results in a bucket: a real server that speaks S3's protocol, on this machine."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from stripes import SIDE, call, write_category

from adtr_jax.errors import InputError
from adtr_jax.files import mirror
from adtr_jax.files.bucket import Bucket, address_of

FLAGS = [
    *("--backbone=pixels", "--layers", "4", f"--image_size={SIDE}", "--model=no_attention"),
    *("--width=32", "--depth=1", "--hidden=64", "--batch_size=8", "--learning_rate=2e-3"),
    *("--dropout=0", "--image_score=top", "--pictures=2"),
]
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """The address of a server that speaks S3."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (
        (tmp_path_factory.mktemp("server") / "log").open("wb") as log,
        subprocess.Popen(words, stdout=log, stderr=log) as process,
    ):
        try:
            for _ in range(300):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture
def store(server, tmp_path, monkeypatch) -> fsspec.AbstractFileSystem:
    """The server's file system with an empty bucket, and a machine without copies."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    found = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    with contextlib.suppress(FileNotFoundError):
        found.rm("bucket", recursive=True)
    found.mkdir("bucket")
    return found


def test_a_preempted_run_goes_on_elsewhere(store, tmp_path, monkeypatch):
    write_category(tmp_path / "data/stripes", wide=8)
    store.put(str(tmp_path / "data"), "bucket/data", recursive=True)
    words = ["--category=stripes", "--data=s3://bucket/data", *FLAGS, "--epochs=200"]
    code = (
        "import runpy, sys\n"
        "from adtr_jax.files import mirror\n"
        "from adtr_jax.training import train\n"
        "mirror.SECONDS = train.SAVE_SECONDS = 0.2\n"
        "sys.argv = ['mvtec', *sys.argv[1:]]\n"
        "runpy.run_module('experiments.mvtec', run_name='__main__')\n"
    )
    out = "--out=s3://bucket/out"
    with subprocess.Popen(
        [sys.executable, "-c", code, *words, out],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "first")},
        stderr=subprocess.PIPE,
    ) as process:
        for _ in range(600):
            if len(store.find("bucket/out/stripes/checkpoints")) > 3 or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    names = [key.removeprefix("bucket/out/stripes/") for key in store.find("bucket/out")]
    assert "settings.json" in names and "model.safetensors" not in names
    assert not any(part.startswith(".") for name in names for part in Path(name).parts)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
    done = call(*words, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("results are in s3://bucket/out\n")
    lines = store.cat("bucket/out/stripes/log.jsonl").decode().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [*range(1, 201)]
    whole = call(*words, f"--out={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    for name in ("model.safetensors", "metrics.json", "scores.csv"):
        content = (tmp_path / "whole/stripes" / name).read_bytes()
        assert store.cat(f"bucket/out/stripes/{name}") == content
    assert not store.find("bucket/out/stripes/checkpoints")


def test_only_what_has_changed_travels(store, tmp_path):
    for name, content in {"a.txt": b"a", "b/c.txt": b"c", "b/.hidden": b"x"}.items():
        store.pipe(f"bucket/set/{name}", content)
    bucket = Bucket("s3://bucket/set")
    folder = bucket.fetch()
    assert folder == tmp_path / "machine/adtr_jax/buckets/s3/bucket/set"
    assert (folder / "a.txt").read_bytes() == b"a" and not (folder / "b/.hidden").exists()
    before = (folder / "a.txt").stat()
    store.pipe("bucket/set/b/c.txt", b"C")
    store.pipe("bucket/set/d.txt", b"d")
    (folder / "mine.txt").touch()
    Bucket("s3://bucket/set").fetch()
    assert (folder / "b/c.txt").read_bytes() == b"C" and (folder / "d.txt").exists()
    assert (folder / "a.txt").stat().st_ino == before.st_ino  # it was not read again
    store.rm("bucket/set/a.txt")
    Bucket("s3://bucket/set").fetch()
    assert not (folder / "a.txt").exists() and (folder / "mine.txt").exists()
    assert Bucket("s3://bucket/set/d.txt").fetch().read_bytes() == b"d"


def test_a_mirror_writes_what_has_changed_and_deletes_what_has_gone(store, monkeypatch):
    monkeypatch.setattr(mirror, "SECONDS", 1000.0)
    with mirror.mirrored("s3://bucket/run") as folder:
        (folder / "one").mkdir()
        (folder / "one/a.txt").write_text("a")
        (folder / "one/b.txt").write_text("b")
        (folder / ".lock").touch()
    assert store.find("bucket/run") == ["bucket/run/one/a.txt", "bucket/run/one/b.txt"]
    with mirror.mirrored("s3://bucket/run") as folder:
        (folder / "one/a.txt").write_text("changed")
        (folder / "one/b.txt").unlink()
    assert store.find("bucket/run") == ["bucket/run/one/a.txt"]
    assert store.cat("bucket/run/one/a.txt") == b"changed"
    # A killed process has changed a file here, and the bucket has the one before.
    (folder / "one/a.txt").write_text("newer")
    with mirror.mirrored("s3://bucket/run") as folder:
        assert (folder / "one/a.txt").read_text() == "newer"
    assert store.cat("bucket/run/one/a.txt") == b"newer"
    # Another machine has gone on: the bucket's is the newer one.
    store.pipe("bucket/run/one/a.txt", b"theirs")
    with mirror.mirrored("s3://bucket/run") as folder:
        assert (folder / "one/a.txt").read_text() == "theirs"


def test_a_run_that_another_one_replaces_leaves_nothing_behind(store, tmp_path, monkeypatch):
    """Killed before it was written: the old model is neither here nor there taken for the new's."""
    monkeypatch.setattr(mirror, "SECONDS", 1000.0)
    with mirror.mirrored("s3://bucket/run") as folder:
        (folder / "a").mkdir()
        for name, content in {"settings.json": "old", "model.safetensors": "OLD"}.items():
            (folder / "a" / name).write_text(content)
    (folder / "a/settings.json").write_text("new!")  # --retrain, killed at once
    (folder / "a/model.safetensors").unlink()
    with mirror.mirrored("s3://bucket/run"):
        assert [file.name for file in (folder / "a").iterdir()] == ["settings.json"]
    assert store.find("bucket/run") == ["bucket/run/a/settings.json"]
    # Another machine does the same: what is here of the run before it is no part of it.
    (folder / "a/checkpoints").mkdir()
    (folder / "a/checkpoints/100").write_text("here alone")
    store.pipe("bucket/run/a/settings.json", b"theirs")
    with mirror.mirrored("s3://bucket/run"):
        assert [file.name for file in (folder / "a").iterdir()] == ["settings.json"]


def test_what_another_machine_writes_beside_it_is_fetched(store, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "SECONDS", 1000.0)
    store.pipe("bucket/run/a/x.txt", b"before")
    with mirror.mirrored("s3://bucket/run") as folder:
        (folder / "mine.txt").write_text("mine")
        store.pipe("bucket/run/a/x.txt", b"theirs")
        with (
            pytest.raises(InputError, match=r"another command .* is using"),
            mirror.mirrored("s3://bucket/run"),
        ):
            pass
    with mirror.mirrored("s3://bucket/run"):
        assert (folder / "a/x.txt").read_text() == "theirs"
    store.rm("bucket/run/a/x.txt")
    with mirror.mirrored("s3://bucket/run"):
        assert not (folder / "a").exists() and (folder / "mine.txt").exists()


def test_a_copy_that_is_deleted_deletes_nothing(store, monkeypatch):
    monkeypatch.setattr(mirror, "SECONDS", 1000.0)
    store.pipe("bucket/run/a.txt", b"a")
    with (
        pytest.raises(InputError, match="has been deleted or emptied while the command runs"),
        mirror.mirrored("s3://bucket/run") as folder,
    ):
        shutil.rmtree(folder)
    assert store.find("bucket/run") == ["bucket/run/a.txt"]


def test_an_error_of_the_run_is_not_hidden_by_the_buckets(store, monkeypatch, capsys):
    monkeypatch.setattr(mirror, "SECONDS", 1000.0)
    with (
        pytest.raises(InputError, match=r"^the run's own$"),
        mirror.mirrored("s3://bucket/run") as folder,
    ):
        (folder / "a.txt").write_text("a")
        store.rm("bucket", recursive=True)
        raise InputError("the run's own")
    assert "warning: s3://bucket/run cannot be reached" in capsys.readouterr().err


def test_results_that_cannot_be_written_stay_here(store, monkeypatch):
    monkeypatch.setattr(mirror, "SECONDS", 1000.0)
    with (
        pytest.raises(InputError, match=r"s3://bucket/run cannot .*; what it lacks is in /.*/run,"),
        mirror.mirrored("s3://bucket/run") as folder,
    ):
        (folder / "a.txt").write_text("a")
        store.rm("bucket", recursive=True)
    store.mkdir("bucket")
    with mirror.mirrored("s3://bucket/run"):
        pass
    assert store.cat("bucket/run/a.txt") == b"a"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://bucket/none", "s3://bucket/none holds nothing: give a folder or file that exists"),
        ("s3://none/data", "s3://none/data cannot be reached or used: .*"),
        ("s3://", "s3:// is no plain name of a folder or file: choose another one"),
        ("s3://bucket/../x", r"s3://bucket/\.\./x is no plain name"),
        ("nostore://x/y", "nostore://x/y is no address: Protocol not known: nostore"),
    ],
)
def test_a_bad_address_is_one_line(store, address, message):
    with pytest.raises(InputError, match=f"^{message}") as error:
        Bucket(address).fetch()
    assert "\n" not in str(error.value)


def test_an_object_that_leads_out_of_the_folder_is_left_alone(tmp_path, monkeypatch):
    """In a store that has such names, as the server's has not."""

    class Odd(MemoryFileSystem):
        protocol = "odd"

        def find(self, path, **options):
            return {f"{path}/a/../../x.txt": {"size": 1}}

    fsspec.register_implementation("odd", Odd, clobber=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    with pytest.raises(InputError, match=r"^odd://set holds nothing: give a folder"):
        Bucket("odd://set").fetch()
    assert not list((tmp_path / "machine").rglob("*.txt"))


def test_a_server_that_is_not_there_is_one_line(store, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    type(store).clear_instance_cache()
    done = call("--category=x", "--data=s3://bucket/data", f"--out={tmp_path}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: s3://bucket/data cannot be reached or used: ")


def test_a_library_that_is_missing_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"^gs://b/x: .*; pip install 'adtr_jax\[buckets\]' has"):
        Bucket("gs://b/x")


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("gs://b/x", "gs://b/x"),
        ("s3:/b/x/y", "s3://b/x/y"),
        ("C:/data", None),
        ("/data/s3:/x", None),
        ("data", None),
    ],
)
def test_addresses(path, address):
    assert address_of(Path(path)) == address
