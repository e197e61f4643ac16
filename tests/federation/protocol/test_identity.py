from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
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
    (tmp_path / "bundle" / "data.yaml").write_bytes(b"x: 1\n")
    (tmp_path / "federation" / "site").mkdir(parents=True)
    (tmp_path / "federation" / "site" / "c.py").write_bytes(b"four\n")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.json").write_bytes(b"{}\n")
    (tmp_path / "configs" / "more.yaml").write_bytes(b"x: 1\n")
    return tmp_path


CONFIGS = ["train.json", "more.yaml"]


def packages(root):
    return {name: [root / name] for name in ("bundle", "federation")}


def hash_at(root):
    return hash_files(root, packages(root))


def test_the_same_files_have_the_same_identity_wherever_they_lie(root):
    ours = identify(CONFIGS, hash_at(root))
    assert root.rename(root.with_name("moved")).exists()
    assert identify(CONFIGS, hash_at(root.with_name("moved"))) == ours


def test_line_ends_do_not_count(root):
    ours = identify(CONFIGS, hash_at(root))
    (root / "bundle" / "a.py").write_bytes(b"one\r\ntwo\r\n")
    assert identify(CONFIGS, hash_at(root)) == ours


def test_what_no_config_names_does_not_count(root):
    ours = identify(CONFIGS, hash_at(root))
    (root / "configs" / "site.yaml").write_bytes(b"dataset_dir: somewhere\n")
    (root / "bundle" / "note.txt").write_bytes(b"")
    assert identify(CONFIGS, hash_at(root)) == ours


@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("bundle/a.py", b"one\ntwo!\n", "code"),
        ("bundle/inner/c.py", b"", "code"),
        ("bundle/data.yaml", b"x: 2\n", "code"),
        ("bundle/inner/faster.abi3.so", b"\x7fELF", "code"),
        ("federation/site/c.py", b"other\n", "federation"),
        ("federation/site/d.json", b"{}", "federation"),
        ("configs/train.json", b"[]\n", "configs"),
    ],
)
def test_a_change_shows_in_its_field_alone(root, name, content, field):
    ours = identify(CONFIGS, hash_at(root))
    (root / name).write_bytes(content)
    theirs = identify(CONFIGS, hash_at(root))
    assert [f for f in Identity._fields if getattr(ours, f) != getattr(theirs, f)] == [field]


def test_the_order_of_configs_counts(root):
    ours = identify(CONFIGS, hash_at(root))
    assert identify(CONFIGS[::-1], hash_at(root)).configs != ours.configs


def test_a_missing_config_is_named(root):
    with pytest.raises(FileNotFoundError, match=r"expected configs/other.yaml in the bundle"):
        identify(["other.yaml"], hash_at(root))


OURS = Identity("1.0", "aa", "bb", "cc", "2.1", "1.4", "2.9")


def test_a_mismatch_shows_both_sides_of_each_difference():
    check_same(OURS, Identity(*OURS))
    message = (
        r"expected version 1.0, got 1.1; expected configs bb, got cc; expected torch 2.1, got 2.2. "
        "Install the job's version"
    )
    with pytest.raises(ValueError, match=message):
        check_same(OURS, OURS._replace(version="1.1", configs="cc", torch="2.2"))


@pytest.mark.parametrize("field", Identity._fields)
def test_every_field_counts(field):
    with pytest.raises(ValueError, match=rf"expected {field} {getattr(OURS, field)}, got other\."):
        check_same(OURS, OURS._replace(**{field: "other"}))


def test_it_survives_a_message():
    assert read_identity(OURS._asdict()) == OURS
    fields = "version, code, configs, federation, torch, monai, nvflare"
    for field in Identity._fields:
        with pytest.raises(ValueError, match=rf"expected the bundle's {fields} as text"):
            read_identity({**OURS._asdict(), field: None})


def test_an_identity_of_version_0_3_is_refused():
    with pytest.raises(ValueError, match=r"expected the bundle's version, .* as text, got \['1.0'"):
        read_identity({"version": "1.0", "code": "aa", "configs": "bb"})


def test_our_own_bundle_can_be_identified():
    ours = identify(["train.json"])
    assert ours.version == bundle.__version__
    assert len(ours.code) == len(ours.configs) == len(ours.federation) == 64
    assert len({ours.code, ours.configs, ours.federation}) == 3
    # A build for another device is the same version.
    assert ours.torch == torch.__version__.split("+")[0]
    assert (ours.monai, ours.nvflare) == (version("monai"), version("nvflare"))


def run_python(program, *folders):
    """Run a program with these folders first on Python's path; return the lines it prints."""
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        cwd=folders[0],
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.splitlines()


def test_an_edit_after_the_import_does_not_pass_for_what_was_loaded(root):
    """In a process of its own, on a copy: the files change, the identity does not."""
    shutil.copytree(Path(bundle.ROOT) / "bundle", root / "bundle", dirs_exist_ok=True)
    shutil.rmtree(root / "federation")
    shutil.copytree(Path(bundle.ROOT) / "custom" / "federation", root / "federation")
    program = """
from pathlib import Path
from federation.protocol.identity import check_unchanged, identify
import bundle
root, configs = Path(bundle.ROOT), ["train.json", "more.yaml"]
before = identify(configs)
def tell(names=configs):
    try:
        print(check_unchanged(names))
    except (ValueError, FileNotFoundError) as error:
        print(error)
tell()
(root / "configs" / "late.yaml").write_text("x: 2")
tell(["late.yaml"])
changes = {
    "configs/train.json": "[]", "bundle/inner/b.py": "other", "bundle/moved_names.json": "{}",
    "federation/site/state.py": "other", "federation/late.py": "new",
}
for name, text in changes.items():
    path = root / name
    old = path.read_bytes() if path.exists() else None
    path.write_text(text)
    tell()
    path.unlink() if old is None else path.write_bytes(old)
(root / "bundle" / "inner" / "b.py").unlink()
tell()
print(root, before == identify(configs))
"""
    told = run_python(program, root)
    assert told[0] == "None"
    assert told[1].startswith("expected configs/late.yaml in the bundle, found no such file")
    changed = ["configs/train.json", "bundle/inner/b.py", "bundle/moved_names.json"]
    changed += ["federation/site/state.py", "federation/late.py", "bundle/inner/b.py"]
    for line, name in zip(told[2:-1], changed, strict=True):
        assert line.startswith(f"expected {name} as it was when this process started, got a chang")
    assert told[-1] == f"{root} True"


def test_a_federation_that_a_job_has_brought_along_is_another_one(root):
    """It is hashed where Python has it from, not where the bundle keeps its own."""
    custom = Path(bundle.ROOT) / "custom"
    shutil.copytree(custom / "federation", root / "job" / "federation")
    changed = root / "job" / "federation" / "site" / "state.py"
    changed.write_text(changed.read_text(encoding="utf-8") + "# other\n", encoding="utf-8")
    program = """
from federation.protocol.identity import identify
print(*identify(["train.json"]))
"""
    (told,) = run_python(program, root / "job", bundle.ROOT, custom)
    ours, theirs = identify(["train.json"]), Identity(*told.split())
    assert theirs == ours._replace(federation=theirs.federation)
    assert theirs.federation != ours.federation


def test_configs_that_are_as_they_were_pass_and_others_do_not(root):
    files = hash_at(root)
    check_unchanged(CONFIGS, root, files, packages(root))
    (root / "configs" / "more.yaml").write_bytes(b"x: 1\r\n")
    check_unchanged(CONFIGS, root, files, packages(root))
    (root / "configs" / "more.yaml").write_bytes(b"x: 2\n")
    with pytest.raises(
        ValueError, match=r"expected configs/more.yaml as it was.*Start the process"
    ):
        check_unchanged(CONFIGS, root, files, packages(root))
    # What the job does not name may change.
    check_unchanged(CONFIGS[:1], root, files, packages(root))
