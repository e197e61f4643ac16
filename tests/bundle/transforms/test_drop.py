from __future__ import annotations

import pytest
import torch

from bundle.modalities import BRATS_MODALITIES, all_subsets, presence
from bundle.transforms.drop import DropModalitiesd


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
