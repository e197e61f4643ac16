from __future__ import annotations

import sys

import pytest
import torch

from bundle.methods.gmd.dominance import Dominance
from bundle.methods.gmd.dominance_picture import draw_dominance, write_dominance
from bundle.methods.gmd.gradients import GradientReport
from bundle.modalities import BRATS_MODALITIES, presence

NAMES = ("t1", "flair", "t1ce+flair")


def recorded(modalities=BRATS_MODALITIES, names=NAMES) -> Dominance:
    """Gradients (1, 0), (-1, 0) and (0, 2), and a step without the last of them."""
    made = Dominance(modalities)
    rows = torch.stack([presence(name.split("+"), modalities) for name in names])
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]]).double()
    for given in (gradients, gradients[:2].abs()):
        made.update(GradientReport(given @ given.T, torch.ones(len(given))), rows[: len(given)])
    return made


def test_bars_show_shares_and_norms_and_the_map_shows_conflicts():
    dominance = recorded()
    shares, _, conflicts, norms, _ = draw_dominance(dominance).axes
    assert [label.get_text() for label in shares.get_yticklabels()] == ["flair", "t1", "t1ce", "t2"]
    expected = dominance.scalars()
    widths = [bar.get_width() for bar in shares.patches]
    names = ("flair", "t1", "t1ce", "t2")
    assert widths == pytest.approx([100 * expected[f"dominance_{name}"] for name in names])
    # In the order of the papers' tables; (1 / (4 / 3) + 1) / 2 for the single modalities.
    labels = [label.get_text() for label in conflicts.get_yticklabels()]
    assert labels == ["t1", "flair", "t1ce+flair"]
    assert [bar.get_width() for bar in norms.patches] == pytest.approx([0.875, 0.875, 1.5])
    dash = "\N{EN DASH}"
    assert [t.get_text() for t in conflicts.texts] == [
        *(dash, "50", "0"),
        *("50", dash, "0"),
        *("0", "0", dash),
    ]


def test_other_modalities_keep_their_own_order():
    names = ("x", "y", "x+y")
    shares = draw_dominance(recorded(("x", "y"), names)).axes[0]
    assert [label.get_text() for label in shares.get_yticklabels()] == ["x", "y"]


def test_many_subsets_are_drawn_without_names():
    modalities = tuple("abcdef")
    made = Dominance(modalities)
    rows = torch.tensor([[bool(code >> i & 1) for i in range(6)] for code in range(1, 64)])
    gradients = torch.randn(63, 5, generator=torch.Generator().manual_seed(0)).double()
    made.update(GradientReport(gradients @ gradients.T, torch.ones(63)), rows)
    conflicts = draw_dominance(made).axes[2]
    assert conflicts.images[0].get_array().shape == (63, 63)
    assert not conflicts.texts
    assert not conflicts.get_yticklabels()


def test_a_picture_is_written(tmp_path):
    path = tmp_path / "out" / "dominance.png"
    write_dominance(recorded(), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in path.parent.iterdir()] == ["dominance.png"]


def test_nothing_is_written_of_nothing(tmp_path):
    write_dominance(Dominance(BRATS_MODALITIES), str(tmp_path / "dominance.png"))
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_left_alone():
    before = sys.modules.get("matplotlib.pyplot")
    figures = before.get_fignums() if before else None
    draw_dominance(recorded())
    after = sys.modules.get("matplotlib.pyplot")
    assert (after.get_fignums() if after else None) == figures
