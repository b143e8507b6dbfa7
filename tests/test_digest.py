"""Digests: a flipped bit, in whatever file, is found."""

import pytest

from adtr_jax.files import digest
from adtr_jax.files.digest import BLANK, damage_of, is_intact, seal_folder, sealed


def test_a_file_holds_the_digest_of_itself(tmp_path):
    content = sealed(b"before" + BLANK.encode() + b"after")
    written = content[6:-5].decode()
    assert len(content) == 6 + 64 + 5 and int(written, 16)
    assert is_intact(content, written)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        assert not is_intact(bytes(damaged), written)
    assert not is_intact(content + b"more", written)
    assert not is_intact(content[:-1], written)
    (tmp_path / "file").write_bytes(b"before" + BLANK.encode() + b"after")
    digest.seal(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"x" + 2 * BLANK.encode()])
def test_a_file_has_one_place_for_it(content):
    with pytest.raises(ValueError, match="one place"):
        sealed(content)


def test_every_bit_of_a_folder_counts(tmp_path):
    (tmp_path / "inner").mkdir()
    files = {"a": b"first", "inner/b": b"second", "inner/empty": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    seal_folder(tmp_path)
    assert damage_of(tmp_path) is None
    for name, content in files.items():
        (tmp_path / name).write_bytes(content + b"\0")
        assert damage_of(tmp_path) == f"{name} is not what was written"
        (tmp_path / name).unlink()
        assert damage_of(tmp_path) == f"{name} is not what was written"
        (tmp_path / name).write_bytes(content)
    (tmp_path / "new").touch()
    assert damage_of(tmp_path) == "new is not what was written"
    (tmp_path / "new").unlink()
    written = (tmp_path / digest.FOLDER).read_bytes()
    for place in range(len(written)):
        damaged = bytearray(written)
        damaged[place] ^= 2
        (tmp_path / digest.FOLDER).write_bytes(damaged)
        assert damage_of(tmp_path) or not written[place : place + 1].strip()
    (tmp_path / digest.FOLDER).write_bytes(b"[]")
    assert damage_of(tmp_path) == f"{digest.FOLDER} holds no digests"
    (tmp_path / digest.FOLDER).unlink()
    assert "cannot be read" in str(damage_of(tmp_path))
