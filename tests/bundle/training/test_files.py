from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from bundle.training.files import check_writable, read_checkpoint, save_atomically, set_aside


@contextmanager
def files_no_larger_than(size_bytes: int) -> Iterator[None]:
    """Let every write beyond this size fail, as on a full disk."""
    resource = pytest.importorskip("resource", reason="limits on file sizes are POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_check_writable_makes_the_folder_and_leaves_nothing_in_it(tmp_path):
    folder = tmp_path / "a" / "b"
    assert check_writable(str(folder)) == str(folder)
    assert list(folder.iterdir()) == []


def test_a_folder_below_a_file_is_not_writable(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match=r"can be written, got .*file/eval \(Not a dir.*--output_dir"):
        check_writable(str(tmp_path / "file" / "eval"))


def test_a_checkpoint_comes_back_as_it_was_and_alone(tmp_path):
    path = tmp_path / "models" / "model.pt"
    content = {"weight": torch.randn(3)}
    save_atomically(content, path)
    assert torch.equal(torch.load(path, weights_only=True)["weight"], content["weight"])
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("numbers", [300, 100_000])
def test_a_write_that_fails_leaves_the_previous_file_and_no_other(tmp_path, numbers):
    path = tmp_path / "state.ckpt"
    save_atomically({"epoch": 1}, path)
    before = path.read_bytes()
    with (
        files_no_larger_than(2000),
        pytest.raises(OSError, match=r"could not write .*state\.ckpt .*previous one is intact"),
    ):
        save_atomically({"weight": torch.randn(numbers)}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_first_write_that_fails_says_that_there_was_none_before(tmp_path):
    path = tmp_path / "state.ckpt"
    with (
        files_no_larger_than(2000),
        pytest.raises(OSError, match=r"there was none before; .* MiB are free.*--resume true"),
    ):
        save_atomically({"weight": torch.randn(100_000)}, path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_of_the_same_kind(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match=r"could not write the checkpoint .*file/state\.ckpt"):
        save_atomically({}, tmp_path / "file" / "state.ckpt")


CONTENT = {"epoch": 4, "weight": torch.arange(8.0), "state": {0: {"step": torch.tensor(3.0)}}}


def flattened(value):
    if isinstance(value, dict):
        return [(key, *flattened(inner)) for key, inner in value.items()]
    return [value.tolist() if isinstance(value, torch.Tensor) else value]


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    """`torch.load` alone takes every fifth of these files for another model, and says nothing."""
    path = tmp_path / "state.ckpt"
    save_atomically(CONTENT, path)
    whole, refused = path.read_bytes(), 0
    directory = whole.index(b"PK\x01\x02") * 8
    # Every bit of the archive's own table, which two programs read in two ways; a share elsewhere.
    for bit in [*range(0, directory, 31), *range(directory, len(whole) * 8, 3)]:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert flattened(read_checkpoint(path, "cpu")) == flattened(CONTENT), f"bit {bit}"
        except ValueError:
            refused += 1
    assert refused > 300


def test_a_tensor_taken_for_a_folder_is_found(tmp_path):
    """PyTorch reads nothing for such an entry, and returns what was in memory."""
    path = tmp_path / "state.ckpt"
    save_atomically(CONTENT, path)
    with zipfile.ZipFile(path) as archive:
        names = [entry.filename for entry in archive.infolist()]
    whole = bytearray(path.read_bytes())
    # 8 bytes before a name in the table stand its attributes (38 of 46 bytes).
    place = whole.rindex(next(n for n in names if n.endswith("data/0")).encode()) - 8
    whole[place] ^= 0x10
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"the checksum of .*data/0 differs"):
        read_checkpoint(path, "cpu")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"PK", pickle.dumps({"a": Path}), pickle.dumps([1]), b"\x00" * 3000, b"[1]"],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "state.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"state.ckpt(: expected a checkpoint| cannot be read)"):
        read_checkpoint(path, "cpu")


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    path = tmp_path / "state.ckpt"
    save_atomically(CONTENT, path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="It is damaged, or something else"):
            read_checkpoint(path, "cpu")


def test_a_missing_file_is_not_called_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.ckpt", "cpu")


def test_what_is_set_aside_has_the_time_and_the_newest_stay(tmp_path):
    path, names = tmp_path / "state.ckpt", []
    for number in range(5):
        path.write_text(str(number))
        names.append(set_aside(path, "damaged").name)
        assert not path.exists()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        names[i]: str(i) for i in (2, 3, 4)
    }
    assert re.fullmatch(r"state\.ckpt\.damaged\.20\d{6}-\d{6}-\d{6}", names[0])


def test_a_clock_that_was_set_back_does_not_cost_the_newest(tmp_path):
    path = tmp_path / "state.ckpt"
    for number in range(3):
        path.with_name(f"state.ckpt.damaged.2999010{number + 1}-000000-000000").write_text("old")
    path.write_text("new")
    assert set_aside(path, "damaged").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("folder", ["~/eval", "~", "~ann/models"])
def test_a_home_in_a_config_is_refused_before_a_folder_of_its_name_is_made(
    folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"expected a folder, got '~.*Write the whole path"):
        check_writable(folder)
    assert list(tmp_path.iterdir()) == []
    assert check_writable("./~") == "./~"
