"""Temperatures: one per subset and region, beside the weights they were fitted for.

A temperature T divides a logit: probability p becomes sigmoid(logit(p) / T). T above 1 makes a
network less certain, below 1 more certain, 1 changes nothing. Which side of 0.5 a voxel lies on
stays, so that no segmentation changes.

They stand in the note beside the weights (`model.json` beside `model.pt`), with the SHA-256 of the
weights; a training that writes other weights writes the note anew, without them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from bundle.atomic import write_text_atomically
from bundle.modalities import all_subsets, names_of, plain, subset_name

logger = logging.getLogger(__name__)

LOWEST, HIGHEST = 0.05, 20.0
_KEY = "temperatures"
# The largest single-precision number below 1: a logit of 16.6. 1 itself would stay 1 for every T.
_BELOW_ONE = 1 - 2.0**-24
_BELOW_HALF = 0.5 - 2.0**-25


@dataclass(frozen=True)
class Temperatures:
    """What logits are divided by.

    Attributes:
        modalities: the vocabulary.
        regions: the names of the R channels, in their order.
        values: subset name -> region name -> temperature; all 2^M - 1 subsets, every region.
    """

    modalities: tuple[str, ...]
    regions: tuple[str, ...]
    values: Mapping[str, Mapping[str, float]]

    def of(self, present: Tensor) -> Tensor:
        """Look up the temperatures (R,) of a case with `present` (M,) bool, True = given."""
        name = subset_name(names_of(present.cpu(), self.modalities), self.modalities)
        return torch.tensor([self.values[name][region] for region in self.regions])

    def cool(self, logits: Tensor, present: Tensor) -> Tensor:
        """Divide the logits (R, D, H, W) of a case by its temperatures; `present` as in `of`."""
        return logits / self.of(present).to(logits)[:, None, None, None]

    def calibrate(self, probabilities: Tensor, present: Tensor) -> Tensor:
        """Turn a network's probabilities into calibrated ones.

        Args:
            probabilities: (R, D, H, W) float, 0 to 1; interpolated ones too.
            present: (M,) bool, True = given to the network.

        Returns:
            As `probabilities`, a new tensor. Exactly 0 stays 0. A region with temperature 1 is bit
            for bit the same. A voxel is at least 0.5 exactly where it was: rounding included.
        """
        calibrated = probabilities.clone()
        values = plain(calibrated)
        for region, temperature in enumerate(self.of(present).tolist()):
            if temperature != 1:
                old = values[region]
                new = (old.clamp(max=_BELOW_ONE).logit() / temperature).sigmoid()
                values[region] = torch.where(
                    old < 0.5, new.clamp(max=_BELOW_HALF), new.clamp(min=0.5)
                )
        return calibrated


class Calibrated(MapTransform):
    """Put calibrated probabilities beside a network's own, which still make the segmentation.

    Args:
        keys: probabilities (R, D, H, W) on the grid of the files.
        name: where the calibrated ones go.
        temperatures: None = they are the network's own.
        present_key: where `present` (M,) bool stands, True = the network was given it.
    """

    def __init__(
        self,
        keys: KeysCollection,
        name: str,
        temperatures: Temperatures | None = None,
        present_key: str = "present",
    ) -> None:
        super().__init__(keys)
        self.name = name
        self.temperatures = temperatures
        self.present_key = present_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the calibrated probabilities; what was there is left alone."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[self.name] = item[key]
            if self.temperatures is not None:
                present = torch.as_tensor(item[self.present_key]).bool()
                item[self.name] = self.temperatures.calibrate(item[key], present)
        return item


def digest_of(weights: str | Path) -> str:
    """SHA-256 of a file of weights."""
    with Path(weights).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_temperatures(
    weights: str | Path, modalities: Sequence[str], regions: Sequence[str]
) -> Temperatures | None:
    """Read the temperatures beside weights.

    Args:
        weights: such as models/model.pt, beside which model.json stands.
        modalities, regions: of the config that is going to use them.

    Returns:
        None = the weights were not calibrated, or are not there.

    Raises:
        ValueError: they belong to other weights, or are not what a calibration writes.
    """
    note = Path(weights).with_suffix(".json")
    if not Path(weights).is_file() or not note.is_file():
        return None
    found = json.loads(note.read_text(encoding="utf-8")).get(_KEY)
    if found is None:
        return None
    if not isinstance(found, Mapping) or found.get("weights") != digest_of(weights):
        raise ValueError(
            f"{note}: the temperatures in it were fitted for other weights than {weights} (their "
            "SHA-256 differ). Calibrate these weights with calibrate.yaml, or give "
            "--calibrated false for the network's own probabilities."
        )
    values = found.get("subsets")
    _check_values(values, modalities, regions, str(note))
    logger.info(f"probabilities are calibrated: temperatures of {note}")
    return Temperatures(tuple(modalities), tuple(regions), values)


class TemperatureNote:
    """The note beside weights, for a calibration that is going to write temperatures into it.

    Args:
        weights: such as models/model.pt.
    """

    def __init__(self, weights: str | Path) -> None:
        self.weights = Path(weights)
        self.digest: str | None = None

    def open(self) -> None:
        """Note which weights are being calibrated, before they are loaded.

        Raises:
            FileNotFoundError: no weights, or no note beside them.
        """
        for path in (self.weights, self.weights.with_suffix(".json")):
            if not path.is_file():
                raise FileNotFoundError(
                    f"expected trained weights and the note beside them, which gets the "
                    f"temperatures, found no {path}. Training writes both: train first, copy the "
                    "note along, or give another folder with --ckpt_dir."
                )
        self.digest = digest_of(self.weights)

    def write(self, values: Mapping[str, Mapping[str, float]], cases: int) -> Path:
        """Write temperatures into the note, in place of those that it had.

        Args:
            values: as in `Temperatures`.
            cases: how many they were fitted on.

        Returns:
            The note.

        Raises:
            ValueError: the weights have changed since `open`.
        """
        if digest_of(self.weights) != self.digest:
            raise ValueError(
                f"{self.weights} was written anew while it was being calibrated: the temperatures "
                "do not fit it and are not kept. Calibrate again when the training has ended."
            )
        note = self.weights.with_suffix(".json")
        content = json.loads(note.read_text(encoding="utf-8"))
        content[_KEY] = {"weights": self.digest, "cases": cases, "subsets": values}
        write_text_atomically(note, json.dumps(content, indent=2) + "\n")
        logger.info(f"temperatures of {len(values)} subsets: {note}")
        return note


def _check_values(
    values: Any, modalities: Sequence[str], regions: Sequence[str], where: str
) -> None:
    names = {subset_name(subset, modalities) for subset in all_subsets(modalities)}
    wrong = not isinstance(values, Mapping) or set(values) != names
    if not wrong:
        rows = list(values.values())
        wrong = any(not isinstance(row, Mapping) or set(row) != set(regions) for row in rows)
    if wrong:
        raise ValueError(
            f"{where}: expected a temperature for each of the {len(names)} subsets of "
            f"{'+'.join(modalities)} and each of the regions {list(regions)}, got others. "
            "Calibrate again with calibrate.yaml."
        )
    for subset, row in values.items():
        for region, value in row.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not LOWEST <= value <= HIGHEST:
                raise ValueError(
                    f"{where}: expected temperatures from {LOWEST} to {HIGHEST}, got {value!r} for "
                    f"{region} of {subset}. Calibrate again with calibrate.yaml."
                )
