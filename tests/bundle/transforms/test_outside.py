from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

import bundle
from bundle.modalities import BRATS_MODALITIES, all_subsets, brain_mask, subset_name
from bundle.networks.unet import UNet
from bundle.transforms.drop import DropModalitiesd
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


# Oblique, in slices, and left-handed; the network sees cubes of another size.
AFFINE = np.array([[-1.2, 0.3, 0, 4], [0.2, 1.1, 0.4, -3], [0, -0.3, 3.1, 9], [0, 0, 0, 1]])
SMALL = {
    "spacing": [2.0] * 3,
    "roi_size": [16] * 3,
    "device": "$torch.device('cpu')",
    "amp": False,
    "channels_last": False,
    "cache_dir": None,
}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Four scans, each with an outline of its own and holes, and a label."""
    folder, files = tmp_path_factory.mktemp("case"), {}
    random = np.random.default_rng(3)
    for channel, name in enumerate((*BRATS_MODALITIES, "label")):
        voxels = random.uniform(1, 2, (13, 12, 7)).astype(np.float32)
        voxels[: 1 + channel], voxels[:, 9 - channel :], voxels[..., :1] = 0, 0, 0
        voxels[7, 3 + channel, 2:4] = 0
        voxels = (voxels > 0) * np.float32(2) if name == "label" else voxels
        files[name] = str(folder / f"{name}.nii")
        nib.save(nib.Nifti1Image(voxels, AFFINE), files[name])
    return {"image": {n: f for n, f in files.items() if n != "label"}, "label": files["label"]}


def parts(config, prefix, **changes):
    parser = ConfigParser()
    parser.read_config(str(Path(bundle.ROOT) / "configs" / config))
    parser.update(SMALL | changes)
    names = ("preprocessing", "inferer", "postprocessing")
    return [parser.get_parsed_content(prefix + name) for name in names]


@pytest.fixture(scope="module")
def network():
    """An untrained network, whose guess is tumour."""
    torch.manual_seed(0)
    made = UNet(4, 3, filters=4, blocks_down=(1, 1), deep_supervision=1).eval()
    return lambda window, present: made(window, present) + 3


@torch.no_grad()
def test_validation_finds_nothing_outside_what_a_subset_shows(case, network):
    prepare, infer, finish = parts("train.json", "validate#", background_key=None)
    whole = prepare({**case, "case": "a"})
    scans = {name: nib.load(file).get_fdata() != 0 for name, file in case["image"].items()}
    for subset in all_subsets(BRATS_MODALITIES):
        item = DropModalitiesd("image", BRATS_MODALITIES, subset)(whole)
        logits = infer(item["image"][None], network, present=item["present"][None])
        found = finish({**item, "pred": logits[0]})["pred"].numpy() != 0
        inside = np.any([scans[name] for name in subset], axis=0)
        assert not found[:, ~inside].any(), subset
        assert found[:, inside].mean() > 0.3, subset


@torch.no_grad()
def test_inference_writes_nothing_outside_what_is_given(case, network, tmp_path):
    settings = {"output_dir": str(tmp_path), "save_probabilities": True}
    prepare, infer, finish = parts("inference.json", "", **settings)
    for subset in all_subsets(BRATS_MODALITIES):
        name, given = subset_name(subset, BRATS_MODALITIES), {m: case["image"][m] for m in subset}
        item = prepare({"image": given, "case": name})
        # As MONAI Label calls it: without saying what is present.
        logits = infer(item["image"][None], network)
        finish({**item, "pred": logits[0]})
        inside = np.any([nib.load(file).get_fdata() != 0 for file in given.values()], axis=0)
        for kind in ("pred", "probabilities"):
            written = nib.load(tmp_path / f"{name}_{kind}.nii.gz").get_fdata()
            assert not written[~inside].any(), (subset, kind)
            assert (written[inside] != 0).mean() > 0.3, (subset, kind)
