from __future__ import annotations

import numpy as np
import pytest

from bundle.data.plausibility.coarse import CoarseCase
from bundle.data.plausibility.measured import Measured
from bundle.data.plausibility.repeats import copy_numbers, repeated_scans


def measured(**hashes: str) -> Measured:
    return Measured(hashes=hashes)


def read(**volumes: np.ndarray) -> Measured:
    case = CoarseCase()
    for name, voxels in volumes.items():
        case.add(name, voxels.astype(np.float32))
    return Measured({}, case.hashes, case.profiles, case.arrangements)


def copies(**volumes: np.ndarray) -> dict[str, float]:
    """Compare the scans of one case, as a check does."""
    scans = {name: voxels.astype(np.float32) for name, voxels in volumes.items()}
    known = read(**scans)
    return copy_numbers(scans, known.hashes, known.arrangements)


def ranks(scan: np.ndarray) -> np.ndarray:
    """Replace what is not 0 by its rank, above 0 and at most 1."""
    ranked = np.zeros(scan.shape, np.float32)
    inside = scan != 0
    ranked[inside] = (scan[inside].argsort().argsort() + 1) / np.count_nonzero(inside)
    return ranked


def quantiles(scan: np.ndarray) -> np.ndarray:
    """Give a scan the values of a normal distribution, moved above 0."""
    ranked = ranks(scan)
    wanted = np.sort(np.random.default_rng(9).normal(100, 20, np.count_nonzero(scan)))
    found = np.zeros(scan.shape, np.float32)
    found[scan != 0] = wanted[np.rint(ranked[scan != 0] * wanted.size).astype(int) - 1]
    return found


@pytest.fixture
def scan():
    """A noisy ball of 2 thousand whole numbers up to 400, and 0 around it."""
    rng = np.random.default_rng(0)
    ball = np.linalg.norm(np.indices((18, 18, 18)) - 8.5, axis=0) < 8
    return np.where(ball, np.rint(rng.gamma(9, 20, ball.shape)).clip(1, 400), 0)


def test_cases_that_share_scans_are_told_within_and_across_sections():
    found = repeated_scans(
        {
            "training": [
                ("a", measured(t1="x", t2="y")),
                ("b", measured(t1="z")),
                ("c", measured(t1="z")),
            ],
            "testing": [("d", measured(t1="x", t2="y", flair="w"))],
        }
    )
    assert [(s.rule, s.case, s.measured, s.where) for s in found] == [
        ("same_scan", "c", 1.0, "training, as case b in training"),
        ("leak", "d", 2.0, "testing, as case a in training"),
    ]
    assert [s.refused for s in found] == ["never", "always"]
    assert str(found[1]) == (
        "case d: testing, as case a in training: a scan is that of a case in another section, so "
        "scores would be too good (leak: equal volumes 2, expected at most 0.5). Keep one of the "
        "cases, or both in one section, with the same 'patient'."
    )


def test_one_file_twice_in_a_case_is_no_second_case():
    assert repeated_scans({"training": [("a", measured(t1="x", t2="x"))]}) == []


def test_cases_that_were_not_read_are_not_compared():
    assert repeated_scans({"training": [("a", measured()), ("b", measured())]}) == []


@pytest.mark.parametrize(
    "store",
    [
        lambda v: 0.1 * v,
        lambda v: np.float32(1 / 3) * v,
        lambda v: np.where(v, 7 * v - 1000, 0),
        lambda v: np.where(v, np.maximum(np.rint(v * 255 / 400), 1), 0),
        lambda v: np.pad(v[::-1], 3) * 2.5,
    ],
    ids=["tenths", "thirds", "offset", "eight bits", "turned and padded"],
)
def test_a_scan_that_was_stored_otherwise_is_known_again(scan, store):
    both = {"training": [("a", read(t1=scan))], "validation": [("b", read(flair=store(scan)))]}
    assert [(s.rule, s.case) for s in repeated_scans(both)] == [("leak", "b")]


def test_another_scan_with_the_same_mask_and_noise_is_none(scan):
    rng = np.random.default_rng(1)
    inside = scan != 0
    again = np.where(inside, np.rint(rng.gamma(9, 20, scan.shape)).clip(1, 400), 0)
    shuffled = np.zeros_like(scan)
    shuffled[inside] = scan[inside] + rng.integers(0, 60, np.count_nonzero(inside))
    for other in (again, shuffled):
        both = {"training": [("a", read(t1=scan))], "testing": [("b", read(t1=other))]}
        assert repeated_scans(both) == []


def test_two_scans_of_a_case_are_compared_voxel_by_voxel(scan):
    noise = np.random.default_rng(2).normal(0, 10, scan.shape)
    volumes = {
        "t1": scan,
        "t1ce": np.where(scan, np.rint(scan / 3) + 50, 0),
        "t2": np.where(scan, scan + noise, 0),
        "flair": np.where(np.arange(18) < 9, scan, 0),
    }
    numbers = copies(**volumes)
    assert numbers["copy t1+t1ce"] > 0.9999
    assert 0.97 < numbers["copy t1+t2"] < 0.9995
    assert not any("flair" in name for name in numbers)


@pytest.mark.parametrize("spread", [ranks, quantiles])
def test_scans_that_were_given_the_same_values_are_no_copies(scan, spread):
    """Of one mask, and smooth in places: one has a slope, the other has another."""
    rng = np.random.default_rng(5)
    one = np.where(scan, scan + np.arange(18), 0)
    other = np.where(scan, rng.gamma(9, 20, scan.shape) + np.arange(18)[:, None], 0)
    assert np.array_equal(np.sort(spread(one), None), np.sort(spread(other), None))
    assert copies(t1=spread(one), t2=spread(other))["copy t1+t2"] < 0.5
    for gain in (1, 3):
        both = {
            "training": [("a", read(t1=spread(one)))],
            "testing": [("b", read(t1=gain * spread(other)))],
        }
        assert repeated_scans(both) == []


@pytest.mark.parametrize(
    "turn",
    [lambda v: v, lambda v: v[::-1], lambda v: np.pad(v.transpose(2, 0, 1)[:, ::-1], (1, 3))],
    ids=["as it is", "mirrored", "turned and padded"],
)
def test_ranks_of_one_scan_are_its_copy(scan, turn):
    rng = np.random.default_rng(6)
    scan = scan[:, :, :12] + 0.1 * (scan[:, :, :12] > 0) * np.arange(12)
    again = turn(ranks(scan))
    assert copies(t1=ranks(scan), flair=again) == {"copy t1+flair": 1.0}
    other = np.where(scan, rng.gamma(9, 20, scan.shape), 0)
    sections = {
        "training": [("x", read(t1=ranks(other))), ("a", read(t1=ranks(scan)))],
        "validation": [("b", read(t2=again)), ("c", read(t2=2 * again))],
    }
    found = [(s.rule, s.case, s.where) for s in repeated_scans(sections)]
    assert found == [("leak", n, "validation, as case a in training") for n in "bc"]


def test_volumes_of_matched_histograms_without_background_are_no_copies():
    values = np.random.default_rng(0).normal(size=12**3)
    # Each holds the same values up to their gain, in an order of its own.
    one, other = (
        gain * np.random.default_rng(seed).permutation(values).reshape(12, 12, 12)
        for seed, gain in ((1, 1.0), (2, 3.0))
    )
    cases = {"training": [("a", read(t1=one))], "testing": [("b", read(t1=other))]}
    assert repeated_scans(cases) == []
    ball = np.linalg.norm(np.indices((12, 12, 12)) - 5.5, axis=0) < 6.4
    inside = {"training": [("a", read(t1=one * ball))], "testing": [("b", read(t1=3 * one * ball))]}
    assert [found.rule for found in repeated_scans(inside)] == ["leak"]
