from __future__ import annotations

import json
import math
import re

import pytest
import torch

from bundle.benchmark import rebuilding
from bundle.data.datalist import load_datalist, write_datalist
from bundle.modalities import BRATS_MODALITIES


@pytest.fixture
def scan():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(16, 16, 16, generator=generator)
    brain = torch.zeros(16, 16, 16, dtype=torch.bool)
    brain[2:14, 2:14, 2:14] = True
    return image.masked_fill(~brain, 0), brain


def test_a_perfect_copy_scores_without_end(scan):
    image, brain = scan
    assert rebuilding.quality(image, image, brain) == (math.inf, pytest.approx(1.0))


def test_psnr_is_the_range_over_the_error_inside_the_brain_alone(scan):
    image, brain = scan
    rebuilt = (image + 0.5).masked_fill(~brain, 1e6)
    span = float(image[brain].max() - image[brain].min())
    psnr, ssim = rebuilding.quality(rebuilt, image, brain)
    assert psnr == pytest.approx(20 * math.log10(span / 0.5), abs=1e-4)
    assert 0 < ssim < 1


def test_noise_scores_less_the_more_of_it_there_is(scan):
    image, brain = scan
    noise = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(1))
    scores = [rebuilding.quality(image + size * noise, image, brain) for size in (0.1, 0.5, 2.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0][1] > scores[1][1] > scores[2][1]


def test_no_brain_is_an_error(scan):
    image, brain = scan
    with pytest.raises(ValueError, match="expected a brain"):
        rebuilding.quality(image, image, brain & False)


def test_the_kept_apart_modality_is_never_together_with_another(tmp_path):
    cases = [
        {
            "case": str(i),
            "image": {name: f"{i}_{name}.nii.gz" for name in BRATS_MODALITIES},
            "label": f"{i}_seg.nii.gz",
        }
        for i in range(7)
    ]
    source = tmp_path / "whole.json"
    write_datalist({"training": cases[:6], "testing": cases[6:]}, source)
    path = rebuilding.unpaired(str(source), "flair", tmp_path / "apart.json")
    content = load_datalist(path, BRATS_MODALITIES)
    kept = [tuple(item["image"]) for item in content["training"]]
    assert kept == [("flair",), ("t1", "t1ce", "t2")] * 3
    assert tuple(content["testing"][0]["image"]) == BRATS_MODALITIES


def test_the_withheld_scan_is_what_is_scored(scan):
    image, _ = scan
    case = {"image": torch.stack([image, 2 * image, 3 * image, 4 * image])}

    class Doubles(torch.nn.Module):
        """Answers every modality with twice T2; never sees FLAIR."""

        def forward(self, image, present):
            assert present.tolist() == [[True, True, True, False]]
            return 2 * image[:, 2:3].expand(-1, 4, -1, -1, -1)

    def inferer(image, network, present):
        return network(image.masked_fill(~present[..., None, None, None], 0), present)

    scores = rebuilding.score_network(Doubles(), [case], "flair", inferer)
    expected = rebuilding.quality(6 * image, 4 * image, image != 0)
    assert (scores["psnr"], scores["ssim"]) == ([expected[0]], [expected[1]])
    nothing = rebuilding.quality(0 * image, 4 * image, image != 0)
    assert (scores["constant_psnr"], scores["constant_ssim"]) == ([nothing[0]], [nothing[1]])


def test_the_table_tells_mean_and_range_over_seeds():
    records = {
        "none, seed 0": {
            **{"psnr": [10.0, 12.0], "ssim": [0.2, 0.4]},
            **{"constant_psnr": [9.0], "constant_ssim": [0.1]},
        },
        "none, seed 1": {"psnr": [13.0, 13.0], "ssim": [0.5, 0.5]},
    }
    table = re.sub(" +", " ", rebuilding.table(records)).splitlines()
    assert table[2] == "| the mean everywhere | 9.00 (9.00 to 9.00) | 0.100 (0.100 to 0.100) |"
    assert table[3] == "| none | 12.00 (11.00 to 13.00) | 0.400 (0.300 to 0.500) |"
    assert table[4].count("\N{EN DASH}") == 2


def test_what_was_measured_is_not_measured_again(tmp_path, monkeypatch):
    calls = []

    def once(datalist, variant, modality, seed, epochs, overrides):
        calls.append((variant, seed))
        return {"psnr": [1.0], "ssim": [0.1]}

    monkeypatch.setattr(rebuilding, "whole_phantom", lambda phantom, folder: "unused")
    monkeypatch.setattr(rebuilding, "unpaired", lambda *arguments: "unused")
    monkeypatch.setattr(rebuilding, "_measure_one", once)
    rebuilding.measure(tmp_path, seeds=(0,), epochs=2)
    assert calls == [("none", 0), ("marginal", 0), ("conditional", 0), ("cautious", 0)]
    rebuilding.measure(tmp_path, seeds=(0, 1), epochs=2)
    assert len(calls) == 8
    rebuilding.measure(tmp_path, seeds=(0,), epochs=3)
    assert len(calls) == 12
    assert len(json.loads((tmp_path / rebuilding.FILE).read_text())) == 8
