"""The rules about odd cases, on real contrast, which set none of their limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import bundle
from bundle.data.scan import scan

BRATS_2021 = Path(
    os.environ.get("BRATS2021_DIR", Path(bundle.ROOT).parent / "shared" / "data" / "brats2021")
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not BRATS_2021.is_dir(),
        reason=f"needs six BraTS 2021 cases in {BRATS_2021}; BRATS2021_DIR names another folder",
    ),
]


def test_none_of_the_six_real_cases_is_flagged(capsys):
    assert scan(BRATS_2021) == []
    shown = capsys.readouterr().out
    assert "6 usable cases" in shown
    assert "warning:" not in shown
    assert "odd by rule" not in shown
