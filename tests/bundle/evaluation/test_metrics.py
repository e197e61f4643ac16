from __future__ import annotations

import math
import warnings
from dataclasses import astuple

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric
from monai.transforms import AsDiscreted, Compose
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from bundle.evaluation.metrics import (
    HD95_ONE_EMPTY_MM,
    SubsetScores,
    items_of,
    region_scores,
)

MODALITIES = ("t1", "t1ce", "t2", "flair")
REGIONS = ("TC", "WT")
ISOTROPIC = (1.0, 1.0, 1.0)
ANISOTROPIC = (0.7, 1.0, 3.5)


def blobs(seed: int, regions: int = 3, size: tuple[int, ...] = (20, 18, 12)) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(size=(regions, *size))
    smooth = np.stack([gaussian_filter(channel, 2) for channel in noise])
    return torch.from_numpy(smooth > np.quantile(smooth, 0.8)).to(torch.uint8)


def mask(*voxels: tuple[int, int, int], size: tuple[int, ...] = (8, 8, 8)) -> torch.Tensor:
    volume = torch.zeros(1, *size, dtype=torch.uint8)
    for voxel in voxels:
        volume[(0, *voxel)] = 1
    return volume


def hd95_by_hand(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    edges = [m & ~binary_erosion(m) for m in (a, b)]
    to_edge = [distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    directed = (to_edge[1][edges[0]], to_edge[0][edges[1]])
    return max(float(np.quantile(distances, 0.95)) for distances in directed)


def item(pred: torch.Tensor, label: torch.Tensor, case: str = "a", subset: str = "t1") -> dict:
    present = torch.tensor([name in subset.split("+") for name in MODALITIES])
    return {"pred": pred, "label": label, "case": case, "present": present}


@pytest.mark.parametrize("spacing", [ISOTROPIC, ANISOTROPIC])
def test_scores_agree_with_scipy_and_monai_on_random_blobs(spacing):
    for seed in range(4):
        pred, label = blobs(seed), blobs(seed + 100)
        dice, hd95, *_ = region_scores(pred, label, spacing)
        by_hand = [
            hd95_by_hand(p.numpy() > 0, t.numpy() > 0, spacing)
            for p, t in zip(pred, label, strict=True)
        ]
        overlap = [
            2.0 * float((p & t).sum()) / float(p.sum() + t.sum())
            for p, t in zip(pred, label, strict=True)
        ]
        monai_dice = DiceMetric(reduction="none")(pred[None].float(), label[None].float())[0]
        monai_hd95 = HausdorffDistanceMetric(
            include_background=True, percentile=95, reduction="none"
        )(pred[None], label[None], spacing=list(spacing))[0]
        assert dice.dtype == hd95.dtype == torch.float64
        assert dice.tolist() == pytest.approx(overlap, abs=1e-6)
        assert hd95.tolist() == pytest.approx(by_hand, abs=1e-5)
        assert torch.equal(dice, monai_dice.double())
        assert torch.equal(hd95, monai_hd95.double())


def test_two_voxels_three_apart_at_two_mm_are_six_mm_apart():
    dice, hd95, *_ = region_scores(mask((1, 4, 4)), mask((4, 4, 4)), (2.0, 1.0, 1.0))
    assert (dice.item(), hd95.item()) == (0.0, 6.0)


def test_half_overlap_is_half_a_dice():
    dice, hd95, *_ = region_scores(
        mask((2, 2, 2), (2, 2, 3)), mask((2, 2, 3), (2, 2, 4)), ISOTROPIC
    )
    assert dice.item() == 0.5
    assert hd95.item() == pytest.approx(0.95)


def test_any_nonzero_value_is_inside():
    pred, label = blobs(1), blobs(2)
    expected = region_scores(pred, label, ANISOTROPIC, nsd_tolerance=1.5)
    scored = region_scores(pred * 4.5, label.bool(), ANISOTROPIC, nsd_tolerance=1.5)
    assert all(torch.equal(a, b) for a, b in zip(expected, scored, strict=True))


@pytest.mark.parametrize(
    ("pred", "label", "expected"),
    [
        (mask(), mask(), (1.0, 0.0)),
        (mask((1, 1, 1)), mask(), (0.0, HD95_ONE_EMPTY_MM)),
        (mask(), mask((1, 1, 1)), (0.0, HD95_ONE_EMPTY_MM)),
        (mask((1, 1, 1)), mask((1, 1, 1)), (1.0, 0.0)),
    ],
)
def test_empty_masks_have_scores_and_no_warning(pred, label, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        dice, hd95, *_ = region_scores(pred, label, ISOTROPIC)
    assert (dice.item(), hd95.item()) == expected


def test_empty_regions_beside_full_ones_leave_nothing_nan():
    pred, label = blobs(3, regions=4), blobs(4, regions=4)
    pred[0] = pred[1] = label[1] = label[2] = 0
    dice, hd95, *_ = region_scores(pred, label, ANISOTROPIC)
    assert dice[:3].tolist() == [0.0, 1.0, 0.0]
    assert hd95[:3].tolist() == [HD95_ONE_EMPTY_MM, 0.0, HD95_ONE_EMPTY_MM]
    assert bool(torch.cat([dice, hd95]).isfinite().all())


def test_an_empty_margin_changes_no_score():
    pred, label = blobs(7), blobs(8)
    margin = (9, 2, 0, 11, 5, 5)
    expected = region_scores(pred, label, ANISOTROPIC, nsd_tolerance=1.5)
    padded = [torch.nn.functional.pad(masks, margin) for masks in (pred, label)]
    scored = region_scores(*padded, ANISOTROPIC, nsd_tolerance=1.5)
    assert all(torch.equal(a, b) for a, b in zip(expected, scored, strict=True))


def test_distances_can_be_left_out():
    dice, hd95, *_ = region_scores(blobs(1), blobs(2), ISOTROPIC, hd95=False)
    assert bool(dice.isfinite().all())
    assert hd95.shape == (3,)
    assert bool(hd95.isnan().all())


def shifted_cubes(by: int):
    """Two cubes of 6 voxels a side, one shifted by so many along W."""
    pred, label = torch.zeros(2, 1, 16, 16, 16)
    label[0, 4:10, 4:10, 4:10] = 1
    pred[0, 4:10, 4:10, 4 + by : 10 + by] = 1
    return pred, label


def test_nsd_is_the_share_of_the_surface_within_the_tolerance_in_mm():
    pred, label = shifted_cubes(2)
    # Along W a voxel is 0.5 mm, so that two are within 1 mm; 2 mm a voxel are not.
    near = region_scores(pred, label, (1.0, 1.0, 0.5), nsd_tolerance=1.0)
    far = region_scores(pred, label, (1.0, 1.0, 2.0), nsd_tolerance=1.0)
    assert near.nsd.item() == 1.0
    assert 0.4 < far.nsd.item() < 0.9
    metric = SurfaceDiceMetric(class_thresholds=[1.0], include_background=True)
    metric(pred[None], label[None], spacing=[1.0, 1.0, 2.0])
    assert far.nsd.item() == pytest.approx(metric.aggregate().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("pred", "label", "nsd"),
    [
        (mask(), mask(), 1.0),
        (mask((1, 1, 1)), mask(), 0.0),
        (mask(), mask((1, 1, 1)), 0.0),
        (mask((1, 1, 1)), mask((1, 1, 1)), 1.0),
    ],
)
def test_nsd_of_empty_masks_follows_dice(pred, label, nsd):
    assert region_scores(pred, label, ISOTROPIC, nsd_tolerance=1.0).nsd.item() == nsd


def test_bias_is_the_predicted_minus_the_true_volume_in_ml():
    pred = torch.zeros(1, 20, 20, 20)
    label = pred.clone()
    pred[0, :10, :10, :10], label[0, :10, :10, :5] = 1, 1
    # 500 voxels too many of 2 x 1 x 1 mm.
    assert region_scores(pred, label, (2.0, 1.0, 1.0)).bias_ml.item() == pytest.approx(1.0)
    assert region_scores(label, pred, (2.0, 1.0, 1.0)).bias_ml.item() == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("rule", "distance"),
    [("373.13", 373.13), (373.13, 373.13), ("393.13", 393.13), (374, 374.0), ("inf", math.inf)],
)
def test_an_empty_mask_is_as_far_as_the_named_rule_says(rule, distance):
    metric = SubsetScores(["WT"], MODALITIES, hd95_empty=rule)
    metric.update([item(mask(), mask((1, 1, 1)))])
    assert metric.rows[0].hd95 == distance


def test_another_rule_or_tolerance_is_refused():
    with pytest.raises(ValueError, match=r"hd95_empty: expected one of 373\.13, 393\.13, 374, inf"):
        SubsetScores(["WT"], MODALITIES, hd95_empty="400")
    with pytest.raises(ValueError, match="nsd_tolerance: expected mm above 0, got 0"):
        SubsetScores(["WT"], MODALITIES, nsd_tolerance=0)


def test_unusable_input_is_refused():
    label = mask((1, 1, 1))
    with pytest.raises(ValueError, match=r"prediction \(1, 4, 8, 8\) and reference \(1, 8, 8, 8\)"):
        region_scores(label[:, :4], label, ISOTROPIC)
    with pytest.raises(ValueError, match="prediction of finite values, got 1 NaN"):
        region_scores(torch.where(label > 0, math.nan, 0.0), label, ISOTROPIC)
    with pytest.raises(ValueError, match="three positive numbers, got"):
        region_scores(label, label, (1.0, 0.0, 1.0))


def test_the_metric_keeps_a_row_per_case_subset_and_region():
    label = torch.cat([mask((1, 4, 4)), mask((4, 4, 4))])
    pred = torch.cat([mask((1, 4, 4)), mask((1, 4, 4))])
    affine = torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    metric = SubsetScores(REGIONS, MODALITIES)
    metric.update([item(pred, MetaTensor(label, affine=affine), subset="flair+t1ce")])
    assert [row[:5] for row in map(astuple, metric.rows)] == [
        ("a", "t1ce+flair", "TC", 1.0, 0.0),
        ("a", "t1ce+flair", "WT", 0.0, 6.0),
    ]
    assert all(math.isnan(row.nsd) for row in metric.rows)
    assert metric.compute() == 0.5
    assert len(metric.rows) == 2


def test_spacing_falls_back_to_the_prediction_and_then_to_one_mm():
    label, pred = mask((1, 4, 4)), mask((4, 4, 4))
    metric = SubsetScores(["WT"], MODALITIES)
    metric.update([item(MetaTensor(pred, affine=torch.diag(torch.tensor([3.0, 1, 1, 1]))), label)])
    metric.update([item(pred, label)])
    assert [row.hd95 for row in metric.rows] == [9.0, 3.0]


def test_a_case_repeated_by_a_distributed_sampler_counts_once():
    metric = SubsetScores(["WT"], MODALITIES, hd95=False)
    good, bad = item(mask((1, 1, 1)), mask((1, 1, 1)), "a"), item(mask(), mask((1, 1, 1)), "b")
    metric.update([good, bad, bad])
    assert metric.compute() == 0.5
    assert [row.case for row in metric.rows] == ["a", "b"]


def test_every_process_learns_every_row(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        metric = SubsetScores(["WT"], MODALITIES, hd95=False)
        metric.update([item(mask((1, 1, 1)), mask((1, 1, 1)))])
        assert metric.compute() == 1.0
        assert len(metric.rows) == 1
    finally:
        torch.distributed.destroy_process_group()


def test_nothing_to_score_is_not_computable_also_after_reset():
    metric = SubsetScores(REGIONS, MODALITIES)
    with pytest.raises(NotComputableError, match="at least one scored case, got none"):
        metric.compute()
    metric.update([item(blobs(1, 2), blobs(2, 2))])
    metric.reset()
    assert metric.rows == []
    with pytest.raises(NotComputableError):
        metric.compute()


def test_errors_name_the_case_and_what_is_wrong_with_it():
    metric = SubsetScores(REGIONS, MODALITIES)
    good = item(blobs(1, 2), blobs(2, 2), case="case_07")
    with pytest.raises(
        ValueError, match=r"case case_07: expected a label of 2 channels \['TC', 'WT'\]"
    ):
        metric.update([{**good, "label": blobs(2, 3)}])
    with pytest.raises(
        ValueError, match="case case_07: expected prediction and reference of one shape"
    ):
        metric.update([{**good, "pred": blobs(1, 2, (4, 4, 4))}])
    with pytest.raises(
        ValueError, match="case case_07: expected at least one present modality, got none"
    ):
        metric.update([{**good, "present": torch.zeros(4, dtype=torch.bool)}])
    with pytest.raises(KeyError, match="case case_07: SubsetScores expects the key 'present'"):
        metric.update([{key: value for key, value in good.items() if key != "present"}])


def test_a_batch_that_was_not_decollated_is_refused():
    engine = Engine(lambda engine, batch: {"pred": batch})
    SubsetScores(REGIONS, MODALITIES).attach(engine, "dice")
    with pytest.raises(
        TypeError,
        match=r"list of dictionaries, one per case, got dict\. Give the evaluator decollate",
    ):
        engine.run([torch.zeros(1)])


def test_the_output_wins_over_the_batch():
    engine = Engine(lambda engine, batch: [{"pred": 2}])
    seen = []
    engine.add_event_handler("ITERATION_COMPLETED", lambda engine: seen.extend(items_of(engine)))
    engine.run([[{"pred": 1, "case": "a"}]])
    assert seen == [{"pred": 2, "case": "a"}]


def test_a_monai_evaluator_hands_over_case_and_presence():
    label = torch.stack([blobs(5, 2), blobs(6, 2)])
    data = [
        {
            "image": MetaTensor(label[i].float(), affine=torch.eye(4)),
            "label": MetaTensor(label[i], affine=torch.eye(4)),
            "case": f"case_{i}",
            "present": torch.tensor([True, False, False, i == 1]),
        }
        for i in range(2)
    ]
    metric = SubsetScores(REGIONS, MODALITIES)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data), batch_size=2),
        network=torch.nn.Identity(),
        postprocessing=Compose([AsDiscreted("pred", threshold=0.5)]),
        key_val_metric={"dice": metric},
    )
    evaluator.run()
    assert evaluator.state.metrics == {"dice": 1.0}
    assert [(row.case, row.subset) for row in metric.rows[::2]] == [
        ("case_0", "t1"),
        ("case_1", "t1+flair"),
    ]
    evaluator.run()
    assert len(metric.rows) == 4
