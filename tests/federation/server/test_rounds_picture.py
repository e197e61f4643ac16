from __future__ import annotations

import pytest
from federation.server import rounds_picture as module
from federation.server.rounds_picture import draw_rounds
from matplotlib.figure import Figure
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


def test_many_sites_leave_room_for_their_lines(tmp_path, monkeypatch):
    """With a name for each of twenty, the legend was higher than the picture."""
    figures = []
    monkeypatch.setattr(
        module, "Figure", lambda **words: figures.append(Figure(**words)) or figures[0]
    )
    sites = {f"site-{number}": number / 20 for number in range(20)}
    many = [{"rounds": n, "mean": 0.5, "worst_site": "site-0", "sites": sites} for n in (1, 2)]
    draw_rounds(many, tmp_path / "x.png")
    (axes,) = figures[0].axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["each of 20 sites", "worst in the end: site-0", "mean of the sites"]
    assert axes.get_position().height > 0.6
    assert len(axes.lines) == 22
