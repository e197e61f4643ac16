from __future__ import annotations

import numpy as np
import pytest

from bundle.data.plausibility.tumour import fit_numbers, nesting_numbers


def onion() -> np.ndarray:
    """Necrosis (1) inside a rim (3) inside oedema (2), as cubes."""
    parts = np.zeros((20, 20, 20), np.uint8)
    for code, edge in ((2, 4), (3, 6), (1, 8)):
        parts[edge:-edge, edge:-edge, edge:-edge] = code
    return parts


def test_what_is_wrapped_has_no_open_surface():
    numbers = nesting_numbers(onion())
    outer, inner = 6 * 12**2, 6 * 8**2
    assert numbers == {
        "open necrosis": 0.0,
        "open oedema": pytest.approx(outer / (outer + inner)),
        "open rim": 0.0,
    }


def test_a_tumour_at_the_border_of_the_volume_is_open_there():
    numbers = nesting_numbers(np.full((6, 6, 6), 2, np.uint8))
    assert numbers == {"open oedema": 1.0}


def test_no_tumour_has_no_numbers(images):
    nothing = np.zeros_like(images["t1"], np.uint8)
    assert nesting_numbers(nothing) == {}
    assert fit_numbers(nothing, images) == {}


def test_a_label_fits_best_where_it_was_drawn(images, parts):
    numbers = fit_numbers(parts, images)
    assert numbers == {"label shift": 0.0, "label fit": 1.0}


def test_a_moved_label_is_told_by_how_far_it_is_off(images, parts):
    numbers = fit_numbers(np.roll(parts, (0, 4, 0), (0, 1, 2)), images)
    assert numbers["label shift"] == 4.0
    assert numbers["label fit"] < 0.5


def test_without_a_bright_image_nothing_is_laid_over_it(images, parts):
    for name in ("t1", "t2"):
        assert fit_numbers(parts, {name: images[name]}) == {}
