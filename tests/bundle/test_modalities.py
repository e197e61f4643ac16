from __future__ import annotations

from collections import Counter

import pytest
import torch

from bundle.modalities import (
    BRATS_MODALITIES,
    all_subsets,
    check_known,
    check_modalities,
    derive_presence,
    draw_subset,
    keep_only,
    names_of,
    parse_subset,
    presence,
    subset_code,
    subset_name,
    table_rows,
)

ALPHABET = "abcdefgh"


def test_a_vocabulary_of_two_to_eight_names_passes():
    assert check_modalities(["t1", "t2"]) == ("t1", "t2")
    assert check_modalities(ALPHABET) == tuple(ALPHABET)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["t1"], "expected 2 to 8 modalities, got 1"),
        (list(ALPHABET + "i"), "expected 2 to 8 modalities, got 9"),
        (["t1", "t1"], "each modality must be named once"),
        (["t1", "t1+t2"], r"free of '\+', got \['t1\+t2'\]"),
        (["t1", ""], r"non-empty .* got \[''\]"),
    ],
)
def test_a_bad_vocabulary_is_refused(names, message):
    with pytest.raises(ValueError, match=message):
        check_modalities(names)


def test_unknown_names_are_listed_with_the_vocabulary_and_the_place():
    check_known(["t1"], BRATS_MODALITIES, "case A")
    with pytest.raises(ValueError, match=r"case A: unknown modality 'adc', 'pd'\. .*'flair'.*add"):
        check_known(["t1", "pd", "adc"], BRATS_MODALITIES, "case A")


def test_subset_names_and_subsets_are_each_others_inverse():
    for subset in all_subsets(BRATS_MODALITIES):
        name = subset_name(reversed(subset), BRATS_MODALITIES)
        assert parse_subset(name, BRATS_MODALITIES) == subset
        assert names_of(presence(subset, BRATS_MODALITIES), BRATS_MODALITIES) == subset


def test_a_subset_reads_in_vocabulary_order():
    assert parse_subset(" t2 + t1", BRATS_MODALITIES) == ("t1", "t2")
    assert subset_name(["flair", "t1"], BRATS_MODALITIES) == "t1+flair"


@pytest.mark.parametrize("text", ["", "+", " + "])
def test_an_empty_subset_is_refused(text):
    with pytest.raises(ValueError, match=r"such as 't1\+t1ce', got"):
        parse_subset(text, BRATS_MODALITIES)


def test_an_unknown_subset_is_refused():
    with pytest.raises(ValueError, match=r"subset 't1\+pd': unknown modality 'pd'"):
        parse_subset("t1+pd", BRATS_MODALITIES)


@pytest.mark.parametrize("size", range(2, 9))
def test_there_are_two_to_the_m_minus_one_subsets_by_size(size):
    subsets = all_subsets(ALPHABET[:size])
    assert len(subsets) == len(set(subsets)) == 2**size - 1
    assert [len(subset) for subset in subsets] == sorted(len(subset) for subset in subsets)


def test_brats_subsets_stand_as_in_the_papers_tables_whatever_the_channel_order():
    subsets = all_subsets(("flair", "t1", "t1ce", "t2"))
    assert subsets[0] == ("t2",)
    assert subsets[3:5] == [("flair",), ("t1ce", "t2")]
    assert subsets[-1] == ("flair", "t1", "t1ce", "t2")
    assert {frozenset(s) for s in subsets} == {frozenset(s) for s in all_subsets(BRATS_MODALITIES)}
    assert [len(subset) for subset in subsets] == [1] * 4 + [2] * 6 + [3] * 4 + [4]


def test_table_rows_follow_the_papers_only_for_brats():
    assert table_rows(BRATS_MODALITIES) == ["flair", "t1", "t1ce", "t2"]
    assert table_rows(("pet", "ct")) == ["pet", "ct"]


def test_presence_is_bool_in_vocabulary_order():
    present = presence(["flair", "t1"], BRATS_MODALITIES)
    assert present.dtype == torch.bool
    assert present.tolist() == [True, False, False, True]


def test_presence_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"present of shape \(4,\) .* got \(3,\)"):
        names_of(torch.ones(3, dtype=torch.bool), BRATS_MODALITIES)


def test_one_voxel_makes_a_channel_present():
    image = torch.zeros(2, 3, 4, 5, 6)
    image[0, 1, 3, 4, 5] = -1e-6
    image[1, 2, 0, 0, 0] = float("nan")
    derived = derive_presence(image)
    assert derived.tolist() == [[False, True, False], [False, False, True]]
    assert torch.equal(derive_presence(image[0]), derived[0])


@pytest.mark.parametrize("size", [2, 4, 8])
def test_subset_codes_are_the_bits_of_presence(size):
    codes = torch.arange(1, 2**size)
    present = (codes[:, None] >> torch.arange(size) & 1).bool()
    assert torch.equal(subset_code(present), codes)
    assert subset_code(present).dtype == torch.int64


def test_codes_number_all_subsets_once_the_first_modality_least():
    present = torch.stack([presence(s, BRATS_MODALITIES) for s in all_subsets(BRATS_MODALITIES)])
    assert sorted(subset_code(present).tolist()) == list(range(1, 16))
    assert subset_code(presence(["t1", "flair"], BRATS_MODALITIES)[None]).tolist() == [1 + 8]


def test_draws_are_non_empty_within_what_is_present_and_equally_likely():
    present = torch.tensor([[True, True, True, True], [False, True, False, True]])
    rows = present.repeat_interleave(1500, 0)
    drawn = draw_subset(rows, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.bool
    assert bool(drawn.any(1).all())
    assert not bool((drawn & ~rows).any())
    full = Counter(map(tuple, drawn[:1500].tolist()))
    part = Counter(map(tuple, drawn[1500:].tolist()))
    # 5 standard deviations around 100 of 1500, and around 500 of 1500.
    assert len(full) == 15
    assert all(52 <= count <= 148 for count in full.values())
    assert len(part) == 3
    assert all(409 <= count <= 591 for count in part.values())


def test_a_generator_makes_draws_repeatable_and_leaves_the_global_one_alone():
    present, before = torch.ones(50, 4, dtype=torch.bool), torch.get_rng_state()
    first = draw_subset(present, torch.Generator().manual_seed(3))
    assert torch.equal(first, draw_subset(present, torch.Generator().manual_seed(3)))
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_can_be_drawn_from_nothing():
    with pytest.raises(ValueError, match="a case has no modality present"):
        draw_subset(torch.tensor([[True, False], [False, False]]))


def test_kept_channels_are_bit_identical_and_the_others_zero():
    image = torch.randn(2, 3, 4, 5, 6)
    image[0, 2], image[1, 0] = float("nan"), float("inf")
    keep = torch.tensor([[True, True, False], [False, True, True]])
    kept = keep_only(image, keep)
    assert torch.equal(kept[keep], image[keep])
    assert bool((kept[~keep] == 0).all())
    assert torch.equal(keep_only(image[0], keep[0]), kept[0])
