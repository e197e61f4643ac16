from __future__ import annotations

import pytest
from federation.protocol.identity import Identity, check_same, identify, read_identity

import bundle


@pytest.fixture
def root(tmp_path):
    (tmp_path / "bundle" / "inner").mkdir(parents=True)
    (tmp_path / "bundle" / "a.py").write_bytes(b"one\ntwo\n")
    (tmp_path / "bundle" / "inner" / "b.py").write_bytes(b"three\n")
    (tmp_path / "train.json").write_bytes(b"{}\n")
    (tmp_path / "more.yaml").write_bytes(b"x: 1\n")
    return tmp_path


CONFIGS = ["train.json", "more.yaml"]


def test_the_same_files_have_the_same_identity_wherever_they_lie(root):
    ours = identify(root, "1.0", CONFIGS)
    assert root.rename(root.with_name("moved")).exists()
    assert identify(root.with_name("moved"), "1.0", CONFIGS) == ours


def test_line_ends_do_not_count(root):
    ours = identify(root, "1.0", CONFIGS)
    (root / "bundle" / "a.py").write_bytes(b"one\r\ntwo\r\n")
    assert identify(root, "1.0", CONFIGS) == ours


def test_what_no_config_names_does_not_count(root):
    ours = identify(root, "1.0", CONFIGS)
    (root / "site.yaml").write_bytes(b"dataset_dir: somewhere\n")
    (root / "bundle" / "note.txt").write_bytes(b"")
    assert identify(root, "1.0", CONFIGS) == ours


@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("bundle/a.py", b"one\ntwo!\n", "code"),
        ("bundle/inner/c.py", b"", "code"),
        ("train.json", b"[]\n", "configs"),
    ],
)
def test_a_change_shows_in_its_field_alone(root, name, content, field):
    ours = identify(root, "1.0", CONFIGS)
    (root / name).write_bytes(content)
    theirs = identify(root, "1.0", CONFIGS)
    assert [f for f in Identity._fields if getattr(ours, f) != getattr(theirs, f)] == [field]


def test_the_order_of_configs_counts(root):
    ours = identify(root, "1.0", CONFIGS)
    assert identify(root, "1.0", CONFIGS[::-1]).configs != ours.configs


def test_a_missing_config_is_named(root):
    with pytest.raises(FileNotFoundError, match=r"expected other.yaml in the bundle"):
        identify(root, "1.0", ["other.yaml"])


def test_a_mismatch_shows_both_sides_of_each_difference():
    ours = Identity("1.0", "aa", "bb")
    check_same(ours, Identity("1.0", "aa", "bb"))
    message = (
        r"expected version 1.0, got 1.1; expected configs bb, got cc. Install the job's version"
    )
    with pytest.raises(ValueError, match=message):
        check_same(ours, Identity("1.1", "aa", "cc"))


def test_it_survives_a_message():
    ours = Identity("1.0", "aa", "bb")
    assert read_identity(ours._asdict()) == ours
    with pytest.raises(ValueError, match=r"expected the bundle's version, code, configs as text"):
        read_identity({"version": "1.0", "code": None, "configs": "bb"})


def test_our_own_bundle_can_be_identified():
    ours = identify(bundle.ROOT, bundle.__version__, ["configs/train.json"])
    assert ours.version == bundle.__version__
    assert len(ours.code) == len(ours.configs) == 64
