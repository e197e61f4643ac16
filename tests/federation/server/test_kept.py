from __future__ import annotations

import os
import resource
import stat

import pytest
import torch
from federation.server.kept import PIECE, DamagedError, Folder, Held


def update():
    generator = torch.Generator().manual_seed(0)
    return {
        "long": torch.randn(PIECE + 3, generator=generator),
        "double": torch.randn(3, 2, generator=generator, dtype=torch.float64),
        "turned": torch.randn(2, 3, generator=generator).T,
        "half": torch.randn(4, generator=generator).bfloat16(),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "kept")


def test_what_is_kept_comes_back_byte_for_byte(folder):
    given = update()
    kept = folder.keep("A", given)
    assert list(kept) == list(given)
    assert len(kept) == len(given)
    for key, value in given.items():
        assert (kept[key].shape, kept[key].dtype) == (value.shape, value.dtype)
        assert torch.equal(kept[key], value)
    assert kept.piece("long", 0).shape == (PIECE,)
    assert torch.equal(kept.piece("long", PIECE), given["long"][PIECE:])
    held = Held(given)
    assert torch.equal(held.piece("long", PIECE), kept.piece("long", PIECE))
    assert torch.equal(held.piece("turned", 0), kept.piece("turned", 0))


def test_only_the_servers_user_can_read_it_whatever_the_umask(folder):
    before = os.umask(0)
    try:
        kept = folder.keep("../../A", update())
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    assert kept.path.parent == folder.path


def test_a_folder_that_others_can_open_is_not_used(folder, tmp_path):
    folder.path.mkdir()
    folder.path.chmod(0o755)
    with pytest.raises(PermissionError, match="as a folder of the server's user alone"):
        folder.keep("A", update())
    folder.path.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="as a folder of the server's user alone"):
        folder.keep("A", update())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_a_lost_process_left_is_removed_and_nothing_stays_at_the_end(folder, tmp_path):
    folder.keep("A", update())
    again = Folder(folder.path)
    assert not folder.path.exists()
    again.keep("A", update())
    again.keep("B", update())
    again.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_leaves_no_half_of_a_file(folder):
    folder.keep("A", {"small": torch.ones(1)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            folder.keep("B", update())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(list(folder.path.iterdir())) == 1


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: os.truncate(path, 100),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_what_has_changed_on_the_disk_is_found(folder, damage):
    kept = folder.keep("A", {"long": update()["long"]})
    kept.check_untouched()
    damage(kept.path)
    for read in (kept.check_untouched, lambda: kept["long"]):
        with pytest.raises(DamagedError, match="has changed since") as caught:
            read()
        assert caught.value.site == "A"


def test_bits_that_flip_on_the_disk_are_found_when_they_are_read(folder):
    kept = folder.keep("A", {"long": update()["long"]})
    times = kept.path.stat().st_atime_ns, kept.path.stat().st_mtime_ns
    flip(kept.path)
    os.utime(kept.path, ns=times)
    kept.check_untouched()
    with pytest.raises(DamagedError, match="has changed since"):
        kept["long"]
