from __future__ import annotations

import numpy as np
import pytest

from bundle.data.plausibility.contrast import (
    agent_numbers,
    mirror_numbers,
    overlap_numbers,
    tissue_numbers,
)


def test_the_outermost_brain_is_dark_on_t1_and_bright_on_t2(images, parts):
    numbers = tissue_numbers(images, parts)
    assert numbers["shell t1"] < -0.5
    assert numbers["shell t1ce"] < -0.5
    assert numbers["shell t2"] > 0.5
    assert numbers["fluid t2"] - numbers["fluid flair"] > 0.5


def test_gain_and_offset_of_a_scanner_do_not_matter(images, parts):
    brighter = {n: np.where(v != 0, 3 * v + 50, 0).astype(np.float32) for n, v in images.items()}
    expected = tissue_numbers(images, parts)
    assert tissue_numbers(brighter, parts) == pytest.approx(expected, abs=0.02)


def test_a_part_of_the_tumour_is_told_only_where_there_is_a_label(images, parts):
    assert "rim t1ce" in tissue_numbers(images, parts)
    assert not [name for name in tissue_numbers(images, None) if name.startswith("rim")]


def test_contrast_agent_brightens_the_rim_and_nothing_else(images, parts):
    numbers = agent_numbers(images, parts)
    assert numbers["agent rim"] > 0.1
    assert abs(numbers["agent oedema"]) < 0.1
    swapped = {**images, "t1": images["t1ce"], "t1ce": images["t1"]}
    assert agent_numbers(swapped, parts)["agent rim"] == pytest.approx(-numbers["agent rim"])


@pytest.mark.parametrize("present", [("t1",), ("t1ce", "t2")])
def test_without_t1_and_t1ce_there_is_nothing_to_say_about_agent(images, parts, present):
    assert agent_numbers({name: images[name] for name in present}, parts) == {}


def test_a_mirrored_volume_is_the_one_that_all_others_disagree_with(images):
    straight = mirror_numbers(images)
    assert max(straight.values()) < 0
    mirrored = mirror_numbers({**images, "t2": images["t2"][::-1].copy()})
    assert mirrored["mirror t2"] > 0.02
    assert max(value for name, value in mirrored.items() if name != "mirror t2") < 0


def test_one_volume_has_nothing_to_be_compared_with(images):
    assert mirror_numbers({"t1": images["t1"]}) == {}
    assert overlap_numbers({"t1": images["t1"]}) == {}


def test_the_overlap_of_masks_is_a_dice():
    half, whole = np.zeros((4, 4, 4)), np.ones((4, 4, 4))
    half[:2] = 1
    numbers = overlap_numbers({"t1": half, "t2": whole})
    assert numbers == {"overlap t1": pytest.approx(2 / 3), "overlap t2": 1.0}
