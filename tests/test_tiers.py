"""The tests' own order: which are slow, and which the two workers start with."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def test_what_comes_first_exists():
    text = (TESTS / "conftest.py").read_text(encoding="utf-8")
    (names,) = re.findall(r"^COSTLIEST_FIRST = \((.*?)^\)", text, re.MULTILINE | re.DOTALL)
    found = re.findall(r'"(tests/.*)"', names)
    assert found
    assert [name for name in found if not (TESTS.parent / name).exists()] == []


def test_every_file_in_slow_is_marked_slow():
    files = sorted((TESTS / "slow").rglob("test_*.py"))
    assert len(files) > 15
    marked = re.compile(r"^pytestmark = (\[\s*)?pytest\.mark\.slow\b", re.MULTILINE)
    assert [path.name for path in files if not marked.search(path.read_text("utf-8"))] == []
