from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from bundle.training.files import check_writable, save_atomically


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
