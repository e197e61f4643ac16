from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

import bundle


def make_copy(folder: Path) -> str:
    (folder / "bundle").mkdir()
    (folder / "bundle" / "__init__.py").write_text("", encoding="utf-8")
    return str(folder)


def test_the_root_holds_the_code_that_runs():
    assert Path(bundle.ROOT, "bundle", "__init__.py").samefile(bundle.__file__)


def test_any_spelling_of_the_own_root_passes():
    assert bundle.check_root(bundle.ROOT) == bundle.ROOT
    assert bundle.check_root(bundle.ROOT + "/configs/..") == bundle.ROOT


def test_a_root_without_a_package_of_that_name_passes(tmp_path):
    assert bundle.check_root(str(tmp_path)) == bundle.ROOT


def test_another_copy_at_the_given_root_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="already loaded from") as caught:
        bundle.check_root(make_copy(tmp_path))
    assert bundle.ROOT in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "separate processes" in str(caught.value)


def test_another_copy_ahead_on_the_path_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [make_copy(tmp_path), bundle.ROOT, *sys.path])
    with pytest.raises(RuntimeError, match="already loaded from"):
        bundle.check_root(bundle.ROOT)


def test_another_copy_behind_on_the_path_passes(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [bundle.ROOT, make_copy(tmp_path), *sys.path])
    assert bundle.check_root(bundle.ROOT) == bundle.ROOT


@pytest.mark.parametrize("value", [True, "true", "True", 1, "yes"])
def test_a_switch_is_on(value):
    assert bundle.flag(value) is True


@pytest.mark.parametrize("value", [False, "false", "False", 0, "no"])
def test_a_switch_is_off_also_as_text_from_the_command_line(value):
    assert bundle.flag(value) is False


def test_another_word_for_a_switch_is_refused():
    with pytest.raises(ValueError, match="expected true or false, got 'maybe'"):
        bundle.flag("maybe")


def test_a_name_without_a_successor_tells_what_to_use_instead():
    text = r"^bundle\.dominance_picture is gone: GMD logs its numbers .*Change the name in"
    with pytest.raises(ImportError, match=text):
        import_module("bundle.dominance_picture")
    with pytest.raises(ImportError, match=r"^bundle\.dominance is now bundle\.methods\.gmd\."):
        import_module("bundle.dominance")
