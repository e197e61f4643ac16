from __future__ import annotations

import pytest

from bundle.protocols.clone import check_clones, commit_of, find_list
from bundle.protocols.form import ListFile
from bundle.protocols.table import PROTOCOLS

COMMIT = "f20ef658" * 5
DEMOSEG = PROTOCOLS["demoseg2020"]


def test_the_commit_is_read_off_a_branch_a_packed_branch_or_the_head(clone):
    assert commit_of(clone) == COMMIT
    (clone / ".git" / "refs" / "heads" / "main").unlink()
    assert commit_of(clone) is None
    packed = f"# pack-refs with: peeled\n{'a' * 40} refs/heads/mai\n{'b' * 40} refs/heads/main\n"
    (clone / ".git" / "packed-refs").write_text(packed)
    assert commit_of(clone) == "b" * 40
    (clone / ".git" / "HEAD").write_text("c" * 40 + "\n")
    assert commit_of(clone) == "c" * 40


@pytest.mark.parametrize("head", ["ref: refs/../../secret", "ref: /etc/passwd", "", "\udcff", "x"])
def test_a_head_that_leads_elsewhere_tells_nothing(head, clone):
    (clone / "secret").write_text(COMMIT)
    (clone / ".git" / "HEAD").write_text(head, encoding="utf-8", errors="surrogateescape")
    assert commit_of(clone) is None


def test_a_link_out_of_the_clone_is_not_followed(clone, tmp_path):
    (tmp_path / "outside").write_text(COMMIT)
    (clone / ".git" / "HEAD").unlink()
    (clone / ".git" / "HEAD").symlink_to(tmp_path / "outside")
    assert commit_of(clone) is None
    (clone / "list.txt").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="is a link that leads out of"):
        find_list([clone], ListFile(("list.txt",)), DEMOSEG)
    (clone / ".git" / "HEAD").unlink()
    assert commit_of(tmp_path) is None


def test_the_first_path_in_the_first_clone_is_taken(tmp_path):
    for name in ("a/two.txt", "b/one.txt", "b/two.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    clones = check_clones([str(tmp_path / "a"), str(tmp_path / "b")])
    found = find_list(clones, ListFile(("one.txt", "two.txt")), DEMOSEG)
    assert (found.path.read_text(), found.place) == ("b/one.txt", "one.txt")
    assert find_list(clones, ListFile(("two.txt",)), DEMOSEG).path.read_text() == "a/two.txt"


def test_a_list_that_is_not_there_is_named_with_its_repository(clone):
    protocol = PROTOCOLS["hga2018-1379"]
    with pytest.raises(FileNotFoundError) as refused:
        find_list([clone], protocol.lists["validation"], protocol)
    said = str(refused.value)
    assert said.startswith("hga2018-1379: no HGA/datasets/BraTS/BRATS2018_Training_none_npy/val1.t")
    assert "Expected a clone of Jun-Jie-Shi/HGA, and kk42yy/DeMoSeg (validation and test" in said


def test_a_clone_must_be_a_folder(tmp_path):
    with pytest.raises(ValueError, match="expected a clone of the protocol's repository, got none"):
        check_clones([])
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder\. Expected a clone"):
        check_clones([str(tmp_path / "nowhere")])
