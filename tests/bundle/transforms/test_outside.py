from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from bundle.modalities import brain_mask
from bundle.transforms.outside import EmptyOutsided, mark_nonzero

SIZE = (3, 4, 5)


def scans(count):
    """Random volumes, each 0 in half of its voxels, so that every pattern of zeros occurs."""
    made = torch.randn(count, *SIZE, generator=torch.Generator().manual_seed(count))
    return made * (torch.rand(made.shape, generator=torch.Generator().manual_seed(9)) < 0.5)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_every_subset_is_emptied_where_its_own_scans_are_all_zero(count):
    image = scans(count)
    marks = mark_nonzero(image)
    assert marks.dtype == torch.uint8
    assert marks.shape == (1, *SIZE)
    volume = torch.rand(3, *SIZE) + 1
    for code in range(1, 2**count):
        present = torch.tensor([bool(code >> bit & 1) for bit in range(count)])
        item = {"pred": volume, "nonzero": marks, "present": present, "case": "a"}
        found = EmptyOutsided("pred")(item)["pred"]
        inside = brain_mask(image[None], present[None])[0]
        assert torch.equal(found, volume * inside)
    assert bool((volume >= 1).all())


def test_the_metadata_stays_and_keys_may_be_missing():
    meta = {"case": "a", "forms": torch.ones(2, 4, 4)}
    item = {
        "pred": MetaTensor(torch.ones(1, *SIZE), affine=torch.eye(4) * 2, meta=meta),
        "nonzero": mark_nonzero(torch.zeros(2, *SIZE)),
        "present": torch.tensor([True, True]),
    }
    found = EmptyOutsided(["pred", "rebuilt"], allow_missing_keys=True)(item)
    assert set(found) == set(item)
    assert not found["pred"].any()
    assert found["pred"].meta["case"] == "a"
    assert torch.equal(found["pred"].affine, item["pred"].affine)


@pytest.mark.parametrize(
    ("marks", "got"), [({}, "got nothing"), ({"nonzero": torch.zeros(1, 3, 4, 6)}, r"\(3, 4, 6\)")]
)
def test_marks_that_are_missing_or_on_another_grid_are_refused(marks, got):
    item = {"pred": torch.ones(1, *SIZE), "present": torch.tensor([True]), "case": "p7", **marks}
    with pytest.raises(
        ValueError, match=rf"case p7: expected under 'nonzero' .*\(3, 4, 5\).*{got}"
    ):
        EmptyOutsided("pred")(item)
