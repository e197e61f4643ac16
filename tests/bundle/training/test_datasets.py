from __future__ import annotations

import os
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, Lambdad, MapTransform, Orientationd, RandLambdad, Spacingd

from bundle.modalities import BRATS_MODALITIES, all_subsets, names_of, presence
from bundle.training.datasets import (
    CaseSubsets,
    cached_cases,
    complete_cases,
    labelled_cases,
    plan_subsets,
    spell_out,
)
from bundle.transforms.load import LoadModalitiesd

READS: Counter = Counter()


class CountReads(MapTransform):
    """Count the cases that pass, and add `shift` to their images."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__("image")
        self.shift = shift

    def __call__(self, data):
        READS[data["case"]] += 1
        return {**data, "image": data["image"] + self.shift}


@pytest.fixture(autouse=True)
def _fresh_count():
    READS.clear()


def chain(shift: float = 0.0) -> Compose:
    return Compose(
        [
            LoadModalitiesd("image", BRATS_MODALITIES),
            CountReads(shift),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=(2.0, 2.0, 2.0), mode="bilinear"),
        ]
    )


@pytest.fixture
def cases(write_case):
    return [write_case("A", BRATS_MODALITIES), write_case("B", ("t1", "flair"))]


def subsets_of(dataset: CaseSubsets) -> list[tuple[int, tuple[str, ...]]]:
    items = (dataset[index] for index in range(len(dataset)))
    return [("AB".index(i["case"]), names_of(i["present"], BRATS_MODALITIES)) for i in items]


def test_every_case_comes_once_in_each_subset_that_it_can_form(cases):
    dataset = CaseSubsets(cases, chain(), BRATS_MODALITIES)
    assert len(dataset) == 15 + 3
    seen = subsets_of(dataset)
    assert seen[:15] == [(0, subset) for subset in all_subsets(BRATS_MODALITIES)]
    assert seen[15:] == [(1, ("t1",)), (1, ("flair",)), (1, ("t1", "flair"))]


def test_a_case_is_loaded_once_for_all_its_subsets(cases):
    subsets_of(CaseSubsets(cases, chain(), BRATS_MODALITIES))
    assert dict(READS) == {"A": 1, "B": 1}


def test_an_earlier_subset_takes_nothing_from_a_later_one(cases):
    dataset = CaseSubsets(cases, chain(), BRATS_MODALITIES)
    full = dataset[14]["image"].clone()
    for index, subset in enumerate(all_subsets(BRATS_MODALITIES)):
        keep, image = presence(subset, BRATS_MODALITIES), dataset[index]["image"]
        assert torch.equal(image[keep], full[keep])
        assert not image[~keep].any()


def test_rotate_gives_one_subset_a_case_and_all_of_them_in_turn():
    data = [{"image": dict.fromkeys(BRATS_MODALITIES, "x")} for _ in range(15)]
    pairs = plan_subsets(data, BRATS_MODALITIES, "rotate")
    assert [index for index, _ in pairs] == list(range(15))
    assert {subset for _, subset in pairs} == set(all_subsets(BRATS_MODALITIES))
    # Few cases already see small and large gaps.
    assert {len(subset) for _, subset in pairs[:4]} == {1, 2, 3}
    data.append({"image": {"t1": "x", "t2": None}})
    assert plan_subsets(data, BRATS_MODALITIES, "rotate")[15] == (15, ("t1",))


@pytest.mark.parametrize("modalities", [2, 3, 5, 8])
def test_rotate_misses_no_subset_of_other_vocabularies(modalities):
    names = [f"m{i}" for i in range(modalities)]
    count = 2**modalities - 1
    data = [{"image": dict.fromkeys(names, "x")} for _ in range(count)]
    assert len({subset for _, subset in plan_subsets(data, names, "rotate")}) == count


def test_a_list_names_the_subsets_and_cases_that_cannot_form_them_are_left_out(cases):
    dataset = CaseSubsets(cases, chain(), BRATS_MODALITIES, ["t2+t1", "flair"])
    assert subsets_of(dataset) == [(0, ("t1", "t2")), (0, ("flair",)), (1, ("flair",))]


@pytest.mark.parametrize(
    ("subsets", "message"),
    [
        ("some", r"'all', 'rotate' or a list such as \['t1\+t2'\], got 'some'"),
        (["t1+pd"], r"subset 't1\+pd': unknown modality 'pd'"),
        (["t2"], r"no case has all modalities of any of \['t2'\]: nothing to evaluate"),
    ],
)
def test_subsets_that_lead_nowhere_are_refused(subsets, message):
    data = [{"case": "B", "image": {"t1": "x", "flair": "y"}, "label": "z"}]
    with pytest.raises(ValueError, match=message):
        CaseSubsets(data, chain(), BRATS_MODALITIES, subsets)


def test_evaluating_nothing_or_the_unlabelled_is_refused():
    datalist = {"testing": [], "training": [{"case": "B", "image": {"t1": "x"}}]}
    with pytest.raises(ValueError, match=r"expected labelled cases in 'testing', got 0 cases"):
        labelled_cases(datalist, "testing")
    with pytest.raises(
        ValueError, match=r"got 1 cases, without label: \['B'\]\. Add cases or labels"
    ):
        labelled_cases(datalist, "training")
    with pytest.raises(ValueError, match=r"\['testing', 'training'\], got 'test'"):
        labelled_cases(datalist, "test")


def test_subsets_are_collated_into_batches(cases):
    batch = next(iter(DataLoader(CaseSubsets(cases, chain(), BRATS_MODALITIES), batch_size=2)))
    assert batch["present"].tolist() == [[False, False, True, False], [False, True, False, False]]


def test_a_second_run_reads_the_cache_silently_and_gets_the_same(cases, tmp_path):
    folder = str(tmp_path / "cache")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Corrupt cache file")
        first = [cached_cases(cases, chain(), folder)[i] for i in range(2)]
        second = [cached_cases(cases, chain(), folder)[i] for i in range(2)]
    assert dict(READS) == {"A": 1, "B": 1}
    for written, read in zip(first, second, strict=True):
        assert torch.equal(written["image"], read["image"])
        assert torch.equal(written["present"], read["present"])
        assert np.array_equal(written["image"].affine, read["image"].affine)
        assert read["case"] == written["case"]


def test_a_cached_case_can_be_turned_back_to_the_scanned_grid(cases, tmp_path):
    for _ in range(2):
        item = cached_cases(cases, chain(), str(tmp_path / "cache"))[0]
        assert tuple(item["image"].shape) != (4, 10, 20, 30)
        assert tuple(chain().inverse(item)["image"].shape) == (4, 10, 20, 30)


def test_a_changed_file_is_read_again(cases, tmp_path):
    folder = str(tmp_path / "cache")
    cached_cases(cases, chain(), folder)[0]
    path = cases[0]["image"]["t1"]
    state = os.stat(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    cached_cases(cases, chain(), folder)[0]
    assert READS["A"] == 2


def test_a_changed_transform_does_not_meet_the_old_cache(cases, tmp_path):
    folder = str(tmp_path / "cache")
    first = cached_cases(cases, chain(), folder)[0]["image"]
    second = cached_cases(cases, chain(shift=1.0), folder)[0]["image"]
    assert READS["A"] == 2
    torch.testing.assert_close(second, first + 1)


def test_random_transforms_run_anew_at_every_access(cases, tmp_path):
    noisy = Compose([*chain().transforms, RandLambdad("image", func=lambda x: x + torch.rand(()))])
    dataset = cached_cases(cases, noisy, str(tmp_path / "cache"))
    assert not torch.equal(dataset[0]["image"], dataset[0]["image"])
    assert READS["A"] == 1


def test_without_folder_nothing_is_kept(cases):
    dataset = cached_cases(cases, Compose([*chain().transforms, Lambdad("image", torch.clone)]))
    dataset[0], dataset[0]
    assert READS["A"] == 2


def test_complete_cases_have_every_modality_and_there_must_be_one(cases):
    assert complete_cases(cases, BRATS_MODALITIES) == cases[:1]
    assert complete_cases(cases, ["t1", "flair"]) == cases
    with pytest.raises(ValueError, match=r"all of t1\+t1ce\+t2\+flair, got 0 of 1"):
        complete_cases(cases[1:], BRATS_MODALITIES)


def test_cases_in_memory_are_prepared_once_and_cannot_be_spoiled(cases):
    spoil = RandLambdad("image", lambda image: image.zero_(), prob=0.5)
    spoil.set_random_state(seed=0)
    dataset = cached_cases(cases, Compose([*chain().transforms, spoil]), in_memory=True)
    zeroed = [not dataset[0]["image"].any() for _ in range(20)]
    assert True in zeroed
    assert False in zeroed[zeroed.index(True) :]
    assert dict(READS) == {"A": 1, "B": 1}


def test_an_item_of_one_file_counts_with_its_siblings(write_case, tmp_path):
    whole = write_case("A", ["t1", "flair"])
    one = {"image": whole["image"]["flair"], "label": whole["label"]}
    (item,) = spell_out([one], BRATS_MODALITIES)
    assert item == whole
    assert spell_out([whole], BRATS_MODALITIES) == [whole]
    loader = LoadModalitiesd("image", BRATS_MODALITIES)
    pairs = CaseSubsets([one], loader, BRATS_MODALITIES, "all").pairs
    assert sorted(subset for _, subset in pairs) == [("flair",), ("t1",), ("t1", "flair")]
    cached = cached_cases([one], loader, str(tmp_path / "cache"), modalities=BRATS_MODALITIES)
    assert cached[0]["present"].tolist() == [True, False, False, True]
