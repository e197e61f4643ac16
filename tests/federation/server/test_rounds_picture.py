from __future__ import annotations

import pytest
from federation.server.rounds_picture import draw_rounds
from matplotlib.image import imread

ENTRIES = [
    {"rounds": 1, "mean": 0.2, "sites": {"a": 0.1, "b": 0.3}},
    {"rounds": 2, "mean": 0.4, "sites": {"a": 0.4}},
    {"rounds": 3, "mean": None, "sites": {"a": None}},
]


def test_it_is_a_picture_even_where_sites_were_missing(tmp_path):
    draw_rounds(ENTRIES, tmp_path / "x.png")
    image = imread(tmp_path / "x.png")
    assert image.shape[:2] == (630, 1050)
    assert image.std() > 0.05


def test_nothing_is_not_drawn(tmp_path):
    with pytest.raises(ValueError, match="expected at least one validation"):
        draw_rounds([], tmp_path / "x.png")


def test_a_name_is_no_formula_and_stays_in_the_legend(tmp_path):
    named = [{"rounds": 1, "mean": 0.2, "sites": {"$x^$": 0.1, "_hidden": 0.3, "two\nlines": 0.1}}]
    draw_rounds(named, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
