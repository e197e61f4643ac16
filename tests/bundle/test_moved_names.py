"""Whoever uses a name of version 0.3 is told the new one, in the last line of the error."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from pydoc import ErrorDuringImport

import pytest
from monai.bundle import ConfigParser

import bundle

TABLE: dict[str, str] = json.loads(
    (Path(bundle.ROOT) / "bundle" / "moved_names.json").read_text(encoding="utf-8")
)
# Every `_target_` of 0.3.1's configs, and every `path` of its jobs.
TARGETS = Path(__file__).with_name("targets_of_0_3_1.txt").read_text(encoding="utf-8").split()


def resolve(name: str) -> object:
    """Import the longest part of a dotted name that is a module, and read the rest from it."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("new", sorted(set(TABLE.values())))
def test_every_new_name_exists(new):
    if new.startswith("federation."):
        pytest.importorskip("nvflare", reason="the federation needs the extra 'fl'")
    assert resolve(new) is not None


@pytest.mark.parametrize("name", TABLE)
def test_an_old_name_is_not_taken_again_for_something_else(name):
    with pytest.raises((ImportError, AttributeError)):
        resolve(name)


@pytest.mark.parametrize("target", TARGETS)
def test_a_config_that_names_an_old_class_ends_with_the_new_name(target):
    module, _, old = target.rpartition(".")
    if target not in TABLE and module not in TABLE:
        assert resolve(target) is not None
        return
    new = TABLE.get(target) or f"{TABLE[module]}.{old}"
    with pytest.raises(ErrorDuringImport) as error:
        ConfigParser({"part": {"_target_": target}}).get_parsed_content("part")
    last = str(error.value).splitlines()[-1]
    assert f"{target} is now {new}" in last or f"{module} is now {TABLE[module]}" in last
    assert last.endswith("Change the name in the config, job or script that has it.")
    assert resolve(new) is not None


def test_expressions_and_imports_of_old_modules_are_told_as_well():
    with pytest.raises(AttributeError, match=r"bundle\.datasets is now bundle\.training.datasets"):
        _ = bundle.datasets
    with pytest.raises(ImportError, match=r"gradients is now bundle\.methods\.gmd\.gradients"):
        importlib.import_module("bundle.gradients")
    with pytest.raises(AttributeError, match="module 'bundle' has no attribute 'nothing'"):
        _ = bundle.nothing
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'bundle\.nothing'"):
        importlib.import_module("bundle.nothing")
