from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from bundle.data.plausibility.judge import judge
from bundle.data.plausibility.measure import CaseMeter, header_numbers
from bundle.data.plausibility.measured import Measured
from bundle.data.volumes import Grid
from bundle.regions import BRATS_REGIONS

SPACING = 2.0


def measure(images, labels=None, spacing=SPACING, regions=BRATS_REGIONS) -> Measured:
    meter = CaseMeter(regions, labels)
    for name, voxels in images.items():
        meter.add(name, voxels)
    shape = next(iter(images.values())).shape
    return meter.measure(Grid(shape, np.diag([spacing, spacing, spacing, 1])))


def rules(images, labels=None, **other) -> list[str]:
    return [found.rule for found in judge("A", measure(images, labels, **other).numbers)]


def test_a_clean_case_is_not_flagged_with_any_modalities(head):
    images, labels = head
    assert rules(images, labels) == []
    assert rules(images) == []
    for name in images:
        assert rules({name: images[name]}, labels) == []


def test_volumes_in_millilitres_and_medians_are_exact(head):
    images, labels = head
    numbers = measure(images, labels).numbers
    assert numbers["ml ET"] == pytest.approx(np.count_nonzero(labels == 4) * 8 / 1000, abs=1e-4)
    assert numbers["ml WT"] == pytest.approx(np.count_nonzero(labels) * 8 / 1000, abs=1e-4)
    assert (
        numbers["median t1"]
        == np.sort(images["t1"][images["t1"] != 0])[np.count_nonzero(images["t1"]) // 2]
    )
    assert 0 < numbers["tumour share"] < 0.4


@pytest.mark.parametrize(
    ("swap", "rule"),
    [
        (("t1", "t1ce"), "agent_in_rim"),
        (("t1", "t2"), "t1_order"),
        (("t2", "flair"), "t2_flair"),
    ],
)
def test_two_files_under_each_others_name(head, swap, rule):
    images, labels = head
    first, second = swap
    swapped = {**images, first: images[second], second: images[first]}
    assert rule in rules(swapped, labels)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({1: 2, 2: 1, 4: 4}, "necrosis_outside"),
        ({1: 1, 2: 4, 4: 2}, "rim_outside"),
        ({1: 4, 2: 2, 4: 1}, "rim_dark"),
        ({1: 1, 2: 1, 4: 1}, "one_label"),
    ],
)
def test_label_values_of_another_convention(head, values, rule):
    images, labels = head
    table = np.zeros(256, np.uint8)
    table[list(values)] = list(values.values())
    assert rule in rules(images, table[labels])


def test_a_label_that_moved_by_four_voxels(head):
    images, labels = head
    assert "label_moved" in rules(images, np.roll(labels, 4, 1))


def keep_part(voxels, axis, start, stop):
    cut = np.moveaxis(np.zeros_like(voxels), axis, 0)
    cut[start:stop] = np.moveaxis(voxels, axis, 0)[start:stop]
    return np.moveaxis(cut, 0, axis)


@pytest.mark.parametrize(("axis", "start", "stop"), [(0, 0, 16), (1, 14, None), (2, 12, 20)])
def test_a_scan_of_a_part_of_the_brain(head, axis, start, stop):
    images, labels = head
    cut = {**images, "t2": keep_part(images["t2"], axis, start, stop)}
    found = judge("A", measure(cut, labels).numbers)
    assert [(s.rule, s.where) for s in found if s.refused != "never"] == [("masks", "t2")]


def test_a_slab_of_few_slices_is_compared_and_its_corners_are_seen():
    rng = np.random.default_rng(0)
    disc = np.linalg.norm(np.indices((64, 64))[..., None] - 31.5, axis=0) < 24
    slab = {n: np.where(disc, rng.uniform(1, 2, (64, 64, 5)), 0) for n in ("t1", "t2", "flair")}
    slab = {name: voxels.astype(np.float32) for name, voxels in slab.items()}
    assert rules(slab) == []
    assert rules({**slab, "t2": keep_part(slab["t2"], 0, 0, 30)}) == ["masks"]
    air = rng.uniform(0.1, 0.2, (64, 64, 5)).astype(np.float32)
    assert rules({**slab, "t2": slab["t2"] + (slab["t2"] == 0) * air}) == ["corners"]


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("others", [(), ("t1", "flair")])
def test_a_scan_of_a_few_voxels(head, count, others):
    images, _ = head
    few = np.zeros_like(images["t2"])
    few.flat[np.flatnonzero(images["t2"])[:count]] = np.arange(1, count + 1)
    found = judge("A", measure({**{n: images[n] for n in others}, "t2": few}).numbers)
    assert {(s.rule, s.where) for s in found if s.rule != "few_voxels"} <= {("masks", "t2")}
    assert ("few_voxels", "t2") in {(s.rule, s.where) for s in found}


@pytest.mark.parametrize(
    "make",
    [
        lambda labels: labels,
        lambda labels: np.where(labels > 0, 50 * labels, 0),
        lambda labels: np.where(labels == 4, 3, labels) / 255,
    ],
    ids=["as it is", "times fifty", "in parts of one"],
)
def test_a_label_among_the_scans(head, make):
    images, labels = head
    found = judge("A", measure({**images, "t1ce": make(labels).astype(np.float32)}).numbers)
    assert ("label_as_scan", "t1ce") in {(s.rule, s.where) for s in found}


def test_a_copy_with_another_gain_or_offset(head):
    images, labels = head
    for copied in (images["t1"] * 0.37, np.where(images["t1"], images["t1"] * 2 + 900, 0)):
        found = judge("A", measure({**images, "t2": copied.astype(np.float32)}, labels).numbers)
        assert ("same_file", "t1 and t2") in {(s.rule, s.where) for s in found}


@pytest.mark.parametrize("regions", [BRATS_REGIONS, {"lesion": (1, 2, 4)}, {}])
def test_a_label_outside_all_that_was_scanned(head, regions):
    images, labels = head
    moved = np.zeros_like(labels)
    moved[:4, :4, :4] = 2
    assert "label_outside" in rules(images, moved, regions=regions)
    assert "label_outside" not in rules(images, labels, regions=regions)


def test_a_volume_whose_background_is_not_0_does_not_hide_a_label_outside(head):
    images, labels = head
    moved = np.zeros_like(labels)
    moved[:4, :4, :4] = 2
    assert set(rules({**images, "t1": images["t1"] + 1}, moved)) >= {"background", "label_outside"}


@pytest.mark.parametrize("names", [("flair",), ("t1", "flair")])
def test_a_brain_that_is_all_tumour_or_far_from_its_label_is_measured_all_the_same(head, names):
    images, labels = head
    tumour = {n: np.where(labels > 0, images[n], 0).astype(np.float32) for n in names}
    assert rules(tumour, labels) is not None
    wide = {n: np.pad(images[n], ((40, 0), (0, 0), (0, 0))) for n in names}
    far = np.zeros_like(wide["flair"], np.uint8)
    far[:4, :4, :4] = 2
    assert "label_outside" in rules(wide, far)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_is_measured_without_an_alarm(head, axis):
    images, labels = head
    cut = [slice(None)] * 3
    cut[axis] = slice(14, 15)
    part = {name: voxels[tuple(cut)] for name, voxels in images.items()}
    found = rules(part, labels[tuple(cut)])
    assert not {"background", "corners", "border", "masks", "few_voxels", "scalp"} & set(found)


@pytest.mark.parametrize("shift", [-1, 1, 100])
def test_a_constant_background_leaves_the_other_rules_out(head, shift):
    images, labels = head
    shifted = {name: voxels + shift for name, voxels in images.items()}
    assert set(rules(shifted, labels)) == {"background"}


def test_a_background_that_is_not_constant(head):
    images, labels = head
    noise = np.random.default_rng(0).uniform(1, 20, labels.shape).astype(np.float32)
    noisy = {**images, "t1": np.where(images["t1"] != 0, images["t1"], noise)}
    assert rules(noisy, labels) == ["background"]


def test_half_a_head_of_air_is_told_by_the_corners(head):
    images, _ = head
    corner = {"t1": np.pad(images["t1"], ((0, 0), (0, 0), (0, 32))).copy()}
    corner["t1"][:16, :16, :16] += 1
    assert rules(corner) == ["corners"]


@pytest.mark.parametrize(("spacing", "first"), [(20.0, "voxel_large"), (0.2, "voxel_small")])
def test_a_header_in_another_unit(head, spacing, first):
    images, labels = head
    assert rules(images, labels, spacing=spacing)[0] == first
    assert len(rules(images, labels, spacing=spacing)) == 2


def test_one_file_under_two_names_is_told(head):
    images, labels = head
    assert "same_file" in rules({**images, "t1ce": images["t1"]}, labels)


def test_the_names_of_2023_are_judged_as_well(head):
    images, labels = head
    names = {"t1n": "t1ce", "t1c": "t1", "t2w": "t2", "t2f": "flair"}
    renamed = {name: images[source] for name, source in names.items()}
    assert "agent_in_rim" in rules(renamed, labels)


def test_other_regions_have_no_rules_about_their_parts(head):
    images, labels = head
    own = {"lesion": (1, 2, 4)}
    numbers = measure(images, labels, regions=own).numbers
    assert "ml lesion" in numbers
    assert not [name for name in numbers if name.startswith(("open", "rim", "label fit"))]


def test_a_brain_of_a_few_voxels_is_too_coarse_to_judge_but_not_to_compare():
    rng = np.random.default_rng(0)
    noise, other = rng.uniform(1, 2, (2, 10, 20, 30)).astype(np.float32)
    assert rules({"t1": noise, "flair": other}) == []
    assert rules({"t1": noise, "flair": noise}) == ["same_file"]
    assert rules({"t1": noise}, spacing=20.0) == ["voxel_large"]


def test_numbers_are_plain_and_survive_json(head):
    images, labels = head
    measured = measure(images, labels)
    assert Measured.read(json.loads(json.dumps(asdict(measured), allow_nan=False))) == measured


def test_a_header_tells_the_shortest_edge():
    grid = Grid((4, 4, 4), np.diag([2.0, 1.0, 6.0, 1]))
    assert header_numbers(grid, {"t1": 0.0, "label": 3.5}) == {"voxel": 1.0, "forms label": 3.5}
