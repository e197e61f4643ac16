"""How well a modality is rebuilt that was never scanned together with another one."""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor

from bundle.atomic import write_text_atomically
from bundle.benchmark.configs import read_configs, run_configs
from bundle.benchmark.data import whole_phantom
from bundle.benchmark.layout import range_cell
from bundle.benchmark.plan import Phantom
from bundle.benchmark.provenance import code_digest
from bundle.data.datalist import load_datalist, write_datalist
from bundle.evaluation.tables import markdown
from bundle.methods.universal.distribution import KINDS
from bundle.modalities import BRATS_MODALITIES, fill_in, plain, presence
from bundle.phantom import PRETRAINING_PATCHES
from bundle.training.datasets import CaseSubsets, labelled_cases
from bundle.training.weights import load_weights

logger = logging.getLogger(__name__)

FILE = "rebuilding.json"
SSIM_WINDOW = 7
VARIANTS = KINDS


def unpaired(datalist: str, modality: str, path: str | Path) -> str:
    """Write a datalist in which no training case has `modality` together with another one.

    Every other training case keeps this modality alone, the rest keep all the others. A model can
    then learn nothing of how the two sides hang together, except what their distributions tell.

    Args:
        datalist: one whose training cases are complete.
        modality: the one to keep apart.
        path: where to.

    Returns:
        `path`.
    """
    content = load_datalist(datalist, BRATS_MODALITIES)
    for index, item in enumerate(content["training"]):
        item["image"] = {
            name: file
            for name, file in item["image"].items()
            if (name == modality) == (index % 2 == 0)
        }
    write_datalist(content, path)
    return str(path)


def quality(rebuilt: Tensor, image: Tensor, brain: Tensor) -> tuple[float, float]:
    """Score a rebuilt volume against the scan, inside the brain.

    Args:
        rebuilt: (D, H, W) z-scores.
        image: (D, H, W) z-scores, the truth.
        brain: (D, H, W) bool, True = inside the brain.

    Returns:
        PSNR in dB and SSIM, -1 to 1, both with the range of the truth inside the brain as the range
        of the data; SSIM is averaged over the windows whose middle lies in the brain.

    Raises:
        ValueError: no voxel lies inside the brain.
    """
    if not bool(brain.any()):
        raise ValueError("expected a brain, got a mask without any voxel")
    inside = image[brain]
    span = float(inside.max() - inside.min())
    error = float((rebuilt[brain] - inside).square().mean())
    # SSIM is made for intensities from 0 on, not for z-scores.
    shifted = [volume - inside.min() for volume in (rebuilt, image)]
    masked = [volume.masked_fill(~brain, 0)[None, None] for volume in shifted]
    ssim, _ = compute_ssim_and_cs(
        *masked,
        spatial_dims=3,
        kernel_size=[SSIM_WINDOW] * 3,
        kernel_sigma=[1.5] * 3,
        data_range=span,
    )
    edge = slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2))
    psnr = math.inf if error == 0 else 10 * math.log10(span**2 / error)
    return psnr, float(ssim[0, 0][brain[edge, edge, edge]].mean())


@torch.inference_mode()
def score_network(
    network: torch.nn.Module,
    cases: Sequence[Mapping[str, Tensor]],
    modality: str,
    inferer: Any,
    given: Sequence[str] | None = None,
) -> dict[str, list[float]]:
    """Rebuild a withheld modality of complete cases.

    Args:
        network: a `bundle.networks.masked_autoencoder.MaskedAutoencoder`.
        cases: each with `image` (M, D, H, W) z-scores, exactly 0 outside the brain.
        modality: what is withheld and rebuilt.
        inferer: called as `inferer(image, network, present=...)`.
        given: what it is rebuilt from; None = all others.

    Returns:
        `psnr` in dB and `ssim`, one number a case; `constant_psnr` and `constant_ssim` of the
        answer that knows nothing, the mean everywhere.
    """
    target = BRATS_MODALITIES.index(modality)
    source = set(BRATS_MODALITIES) - {modality} if given is None else set(given)
    present = presence(source, BRATS_MODALITIES)[None]
    names = ("psnr", "ssim", "constant_psnr", "constant_ssim")
    scores: dict[str, list[float]] = {name: [] for name in names}
    for case in cases:
        image = plain(torch.as_tensor(case["image"]))
        answer = inferer(image[None], network.eval(), present=present)
        # As deployed: 0 where nothing was given, for which the inferer has no z-scores.
        rebuilt = fill_in(image[None], answer, present)[0, target]
        brain = (image != 0).any(0)
        found = quality(rebuilt, image[target], brain)
        constant = quality(torch.zeros_like(rebuilt), image[target], brain)
        for name, value in zip(names, (*found, *constant), strict=True):
            scores[name].append(value)
    return scores


def score_pretrained(
    configs: Sequence[str],
    settings: Mapping[str, Any],
    weights: str,
    modality: str,
    given: Sequence[str],
) -> dict[str, list[float]]:
    """Rebuild a withheld modality of the testing cases by a pre-trained network.

    Args:
        configs: names of files in configs/, with which it was pre-trained.
        settings: ids and values that come last, `datalist_file` among them.
        weights: the network's, a flat state dict.
        modality, given: as in `score_network`.

    Returns:
        As `score_network`.
    """
    parser = read_configs(configs, {**settings, "cache_dir": None}).parser
    load_weights(parser.get_parsed_content("network"), weights)
    return _score_testing_cases(parser, modality, given)


def _score_testing_cases(
    parser: Any, modality: str, given: Sequence[str] | None = None
) -> dict[str, list[float]]:
    data = CaseSubsets(
        labelled_cases(parser.get_parsed_content("datalist"), "testing"),
        parser.get_parsed_content("validate#preprocessing"),
        BRATS_MODALITIES,
        ["+".join(BRATS_MODALITIES)],
    )
    cases = [data[index] for index in range(len(data))]
    network = parser.get_parsed_content("network")
    return score_network(
        network, cases, modality, parser.get_parsed_content("validate#inferer"), given
    )


def write(output_dir: str) -> str:
    """Measure what is missing in `rebuilding.json` in the folder; return the table."""
    return table(measure(output_dir))


def table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Write mean and range over seeds of each variant as a Markdown table.

    Args:
        records: what `measure` returned.
    """
    known = [record for record in records.values() if "constant_psnr" in record][:1]
    body = [["the mean everywhere", *_cells(known, "constant_")]]
    for variant in VARIANTS:
        seeds = [record for name, record in records.items() if name.startswith(f"{variant}, ")]
        body.append([variant, *_cells(seeds)])
    return markdown(["distribution approximation", "PSNR dB", "SSIM"], body)


def _cells(seeds: Sequence[Mapping[str, Any]], prefix: str = "") -> list[str]:
    return [
        range_cell([sum(seed[prefix + name]) / len(seed[prefix + name]) for seed in seeds], digits)
        for name, digits in (("psnr", 2), ("ssim", 3))
    ]


def measure(
    output_dir: str | Path,
    modality: str = "flair",
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 30,
    phantom: Phantom = Phantom(testing=16, size=48),  # noqa: B008 - frozen
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Pre-train with every kind of distribution approximation and score what is rebuilt.

    What was measured before, of the same settings, is read from `rebuilding.json` in `output_dir`
    and not measured again.

    Args:
        output_dir: the grid's folder.
        modality: the one that is never scanned together with another one.
        seeds: of weights and order.
        epochs: of each pre-training.
        phantom: the data.
        overrides: further ids of the configs.

    Returns:
        For every variant and seed, such as "none, seed 0": `settings`, `psnr` and `ssim`.
    """
    path = Path(output_dir) / FILE
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    datalist = unpaired(whole_phantom(phantom, output_dir), modality, _datalist_path(output_dir))
    settings = {
        **{"modality": modality, "epochs": epochs, "phantom": asdict(phantom)},
        **{"overrides": {**PRETRAINING_PATCHES, **(overrides or {})}, "code": code_digest()},
    }
    for seed in seeds:
        for variant in VARIANTS:
            name = f"{variant}, seed {seed}"
            if known.get(name, {}).get("settings") != settings:
                scores = _measure_one(datalist, variant, modality, seed, epochs, overrides or {})
                known[name] = {"settings": settings, **scores}
                write_text_atomically(path, json.dumps(known, indent=1) + "\n")
            logger.info(f"rebuilding {modality}, {name}: {_means(known[name])}")
    return known


def _measure_one(
    datalist: str,
    variant: str,
    modality: str,
    seed: int,
    epochs: int,
    overrides: Mapping[str, Any],
) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            **{"datalist_file": datalist, "dataset_dir": str(Path(datalist).parent)},
            **{"output_dir": scratch, "ckpt_dir": scratch, "seed": seed, "max_epochs": epochs},
            **{**PRETRAINING_PATCHES, "distribution": variant, **overrides},
        }
        configs = ["train.json", "pretrain.yaml", "benchmark.yaml"]
        parser, _ = run_configs(configs, settings)
        return _score_testing_cases(parser, modality)


def _datalist_path(output_dir: str | Path) -> Path:
    return Path(output_dir) / "datalist_never_together.json"


def _means(record: Mapping[str, Sequence[float]]) -> str:
    psnr, ssim = (sum(record[name]) / len(record[name]) for name in ("psnr", "ssim"))
    return f"PSNR {psnr:.2f} dB, SSIM {ssim:.3f}"
