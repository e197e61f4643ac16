from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from federation.protocol.identity import (
    Identity,
    check_same,
    check_unchanged,
    hash_files,
    identify,
    read_identity,
)

import bundle


@pytest.fixture
def root(tmp_path):
    (tmp_path / "bundle" / "inner").mkdir(parents=True)
    (tmp_path / "bundle" / "a.py").write_bytes(b"one\ntwo\n")
    (tmp_path / "bundle" / "inner" / "b.py").write_bytes(b"three\n")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.json").write_bytes(b"{}\n")
    (tmp_path / "configs" / "more.yaml").write_bytes(b"x: 1\n")
    return tmp_path


CONFIGS = ["train.json", "more.yaml"]


def test_the_same_files_have_the_same_identity_wherever_they_lie(root):
    ours = identify(CONFIGS, hash_files(root))
    assert root.rename(root.with_name("moved")).exists()
    assert identify(CONFIGS, hash_files(root.with_name("moved"))) == ours


def test_line_ends_do_not_count(root):
    ours = identify(CONFIGS, hash_files(root))
    (root / "bundle" / "a.py").write_bytes(b"one\r\ntwo\r\n")
    assert identify(CONFIGS, hash_files(root)) == ours


def test_what_no_config_names_does_not_count(root):
    ours = identify(CONFIGS, hash_files(root))
    (root / "configs" / "site.yaml").write_bytes(b"dataset_dir: somewhere\n")
    (root / "bundle" / "note.txt").write_bytes(b"")
    assert identify(CONFIGS, hash_files(root)) == ours


@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("bundle/a.py", b"one\ntwo!\n", "code"),
        ("bundle/inner/c.py", b"", "code"),
        ("configs/train.json", b"[]\n", "configs"),
    ],
)
def test_a_change_shows_in_its_field_alone(root, name, content, field):
    ours = identify(CONFIGS, hash_files(root))
    (root / name).write_bytes(content)
    theirs = identify(CONFIGS, hash_files(root))
    assert [f for f in Identity._fields if getattr(ours, f) != getattr(theirs, f)] == [field]


def test_the_order_of_configs_counts(root):
    ours = identify(CONFIGS, hash_files(root))
    assert identify(CONFIGS[::-1], hash_files(root)).configs != ours.configs


def test_a_missing_config_is_named(root):
    with pytest.raises(FileNotFoundError, match=r"expected configs/other.yaml in the bundle"):
        identify(["other.yaml"], hash_files(root))


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
    ours = identify(["train.json"])
    assert ours.version == bundle.__version__
    assert len(ours.code) == len(ours.configs) == 64


def test_an_edit_after_the_import_does_not_pass_for_what_was_loaded(root):
    """In a process of its own, on a copy: the files change, the identity does not."""
    shutil.copytree(Path(bundle.ROOT) / "bundle", root / "bundle", dirs_exist_ok=True)
    program = """
from pathlib import Path
from federation.protocol.identity import check_unchanged, identify
import bundle
root, configs = Path(bundle.ROOT), ["train.json", "more.yaml"]
before = identify(configs)
check_unchanged(configs)
(root / "bundle" / "inner" / "b.py").write_text("other")
(root / "configs" / "train.json").write_text("[]")
(root / "configs" / "late.yaml").write_text("x: 2")
print(root, before == identify(configs))
for names in (configs, ["late.yaml"]):
    try:
        check_unchanged(names)
    except (ValueError, FileNotFoundError) as error:
        print(error)
"""
    custom = str(Path(bundle.ROOT) / "custom")
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), custom])},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    told = run.stdout.splitlines()
    assert told[0] == f"{root} True"
    assert told[1].startswith("expected configs/train.json as it was when this process started")
    assert told[2].startswith("expected configs/late.yaml in the bundle, found no such file")


def test_configs_that_are_as_they_were_pass_and_others_do_not(root):
    files = hash_files(root)
    check_unchanged(CONFIGS, root, files)
    (root / "configs" / "more.yaml").write_bytes(b"x: 1\r\n")
    check_unchanged(CONFIGS, root, files)
    (root / "configs" / "more.yaml").write_bytes(b"x: 2\n")
    with pytest.raises(
        ValueError, match=r"expected configs/more.yaml as it was.*Start the process"
    ):
        check_unchanged(CONFIGS, root, files)
