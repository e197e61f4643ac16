from __future__ import annotations

from collections import Counter

import pytest
import torch

from bundle.modalities import BRATS_MODALITIES, all_subsets, presence
from bundle.transforms.drop import DropModalitiesd, RandDropModalitiesd


def item(*present: str) -> dict:
    image = torch.randn(4, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    here = presence(present or BRATS_MODALITIES, BRATS_MODALITIES)
    image[~here] = 0
    return {"image": image, "present": here, "case": "A"}


@pytest.mark.parametrize("subset", all_subsets(BRATS_MODALITIES))
def test_kept_channels_are_bit_identical_and_the_others_zero(subset):
    given = item()
    dropped = DropModalitiesd("image", BRATS_MODALITIES, subset)(given)
    keep = presence(subset, BRATS_MODALITIES)
    assert torch.equal(dropped["present"], keep)
    assert torch.equal(dropped["image"][keep], given["image"][keep])
    assert not dropped["image"][~keep].any()


def test_the_input_is_left_alone():
    given = item()
    before = given["image"].clone()
    DropModalitiesd("image", BRATS_MODALITIES, ["t1"])(given)
    assert torch.equal(given["image"], before)
    assert given["present"].all()


def test_what_is_absent_stays_absent():
    dropped = DropModalitiesd("image", BRATS_MODALITIES, ["t1", "t2"])(item("t1", "flair"))
    assert dropped["present"].tolist() == [True, False, False, False]


def test_a_case_of_which_nothing_would_be_left_is_refused():
    drop = DropModalitiesd("image", BRATS_MODALITIES, ["t2"])
    with pytest.raises(ValueError, match=r"case A: nothing .*of \['t2'\].* only \['t1', 'flair'\]"):
        drop(item("t1", "flair"))


def test_a_random_drop_equals_the_drop_of_the_subset_it_recorded():
    draw = RandDropModalitiesd("image", BRATS_MODALITIES).set_random_state(0)
    for _ in range(20):
        drawn = draw(item("t1", "t2", "flair"))
        applied = DropModalitiesd("image", BRATS_MODALITIES, draw.keep)(item("t1", "t2", "flair"))
        assert torch.equal(drawn["image"], applied["image"])
        assert torch.equal(drawn["present"], applied["present"])


def test_random_drops_are_reproducible():
    draw = RandDropModalitiesd("image", BRATS_MODALITIES)

    def sequence(seed: int) -> list[tuple[str, ...]]:
        draw.set_random_state(seed)
        return [(draw(item()), draw.keep)[1] for _ in range(30)]

    torch.manual_seed(1)
    first = sequence(5)
    torch.manual_seed(2)
    assert sequence(5) == first
    assert sequence(6) != first


def test_every_subset_of_what_is_present_is_drawn_about_equally():
    draw = RandDropModalitiesd("image", BRATS_MODALITIES).set_random_state(0)
    drawn = []
    for _ in range(700):
        draw.randomize(torch.tensor([True, False, True, True]))
        drawn.append(draw.keep)
    counts = Counter(drawn)
    assert len(counts) == 7
    assert all("t1ce" not in subset for subset in counts)
    # 5 standard deviations around 100.
    assert all(53 <= count <= 147 for count in counts.values())


def test_prob_says_how_often_anything_may_go():
    never = RandDropModalitiesd("image", BRATS_MODALITIES, prob=0.0).set_random_state(0)
    assert all(never(item())["present"].all() for _ in range(20))
    half = RandDropModalitiesd("image", BRATS_MODALITIES, prob=0.5).set_random_state(0)
    untouched = sum(bool(half(item())["present"].all()) for _ in range(300))
    # One half, and one in fifteen of the other half: 160, 5 standard deviations are 43.
    assert 117 <= untouched <= 203
