"""Samples of several modalities as feature sequences: what is given, what is missing, one scale.

Letters besides the legend of `bundle.modalities`: N samples, T frames (padded), F features.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bundle.data.degrade import draw_kept, read_rates
from bundle.modalities import names_of
from bundle.sentiment.files import load_layout

FEATURE_MODALITIES = ("text", "audio", "vision")

# MMSA's name first, then that of the older files for MulT.
_LABELS = ("regression_labels", "labels")
# Samples at a time where a copy in double precision is needed.
_PART = 256

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureSequences:
    """The samples of one section.

    Attributes:
        names: N names.
        frames: modality -> (N, T, F) float32, finite; T and F are each modality's own.
        valid: modality -> (N, T) bool, True = a frame that counts, False = padding.
        labels: (N,) float32, finite.
    """

    names: tuple[str, ...]
    frames: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.names)

    @property
    def present(self) -> Tensor:
        """(N, M) bool, True = the sample has the modality: at least one frame that counts."""
        return torch.stack([valid.any(1) for valid in self.valid.values()], 1)

    def take(self, rows: Tensor) -> FeatureSequences:
        """Return the samples with the indices `rows`, (B,) int, in that order."""
        return FeatureSequences(
            names=tuple(self.names[row] for row in rows.tolist()),
            frames={name: frames[rows] for name, frames in self.frames.items()},
            valid={name: valid[rows] for name, valid in self.valid.items()},
            labels=self.labels[rows],
        )


def read_features(path: str | Path) -> dict[str, FeatureSequences]:
    """Read train, valid and test from a file of feature sequences.

    A frame counts if it lies before the sample's length or, for text, if `text_bert` marks it;
    where the file tells neither, if it is not zero throughout, as padding is. Among the frames that
    count, features that are NaN or infinite become 0 and are counted in a warning. A sample lacks a
    modality that holds nothing but zeros then. A sample that lacks every modality is left out, with
    a warning that names it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what `load_layout` refuses; features, lengths or labels that are not there or
            do not fit together; a label that is NaN or infinite; a section without samples.
    """
    content = load_layout(path)
    sections = {key: _read(values, f"{path}, {key}") for key, values in content.items()}
    for name in FEATURE_MODALITIES:
        widths = {key: section.frames[name].shape[2] for key, section in sections.items()}
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"{path}: expected as many features of {name} in every section, got {widths}"
            )
    return sections


def lose_modalities(samples: FeatureSequences, ratio: float, seed: int) -> FeatureSequences:
    """Take modalities away from samples, for good; no sample loses all that it has.

    Args:
        samples: one section.
        ratio: chance, 0 to 1, that a modality of a sample goes.
        seed: with a sample's name it decides what goes (`bundle.data.degrade.draw_kept`).

    Returns:
        The same samples; no frame counts of what went.

    Raises:
        ValueError: `ratio` is no chance.
    """
    names = tuple(samples.frames)
    rates = read_rates(ratio, None, names)
    kept = [
        draw_kept(names_of(row, names), rates, seed, case)
        for row, case in zip(samples.present, samples.names, strict=True)
    ]
    valid = {
        name: valid & torch.tensor([name in some for some in kept])[:, None]
        for name, valid in samples.valid.items()
    }
    return replace(samples, valid=valid)


def standardise(sections: Mapping[str, FeatureSequences]) -> dict[str, FeatureSequences]:
    """Bring every feature to mean 0 and standard deviation 1 over the training frames that count.

    A feature that never changes in training is only shifted.

    Args:
        sections: "train" and others.

    Returns:
        The same sections, frames that do not count set to 0.

    Raises:
        ValueError: no training sample has one of the modalities, so that nothing can be learnt of
            it.
    """
    training = sections["train"]
    scales = {name: _scale(name, training) for name in training.frames}
    return {
        key: replace(
            section,
            frames={
                name: _standardised(frames, section.valid[name], *scales[name])
                for name, frames in section.frames.items()
            },
        )
        for key, section in sections.items()
    }


def _scale(name: str, training: FeatureSequences) -> tuple[Tensor, Tensor]:
    frames, valid = training.frames[name], training.valid[name]
    count = int(valid.sum())
    if not count:
        raise ValueError(
            f"expected training samples with {name}, got none among {len(training)}. Lower the "
            "missing ratio, or leave the modality out."
        )
    # In double precision, and in parts for the sake of memory.
    parts = list(zip(frames.split(_PART), valid.split(_PART), strict=True))
    mean = sum(some[inside].double().sum(0) for some, inside in parts) / count
    squares = sum((some[inside].double() - mean).square().sum(0) for some, inside in parts)
    deviation = (squares / count).sqrt()
    # Below this a feature differs from its mean by rounding only.
    return mean, deviation.masked_fill(deviation <= 1e-6 * mean.abs(), 1)


def _standardised(frames: Tensor, valid: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    scaled = [((part.double() - mean) / deviation).float() for part in frames.split(_PART)]
    return torch.cat(scaled).masked_fill(~valid[:, :, None], 0)


def _read(content: Mapping[str, Any], where: str) -> FeatureSequences:
    labels = _labels(content, where)
    names = _names(content.get("id"), len(labels), where)
    read = {
        name: _modality(content, name, names, f"{where}, {name}") for name in FEATURE_MODALITIES
    }
    frames, valid = ({name: pair[i] for name, pair in read.items()} for i in range(2))
    samples = FeatureSequences(names, frames, valid, labels)
    some = samples.present.any(1)
    empty = [name for name, here in zip(names, some.tolist(), strict=True) if not here]
    if len(empty) == len(samples):
        raise ValueError(f"{where}: expected samples, got none that has any modality")
    if not empty:
        return samples
    logger.warning("%s: left out, since nothing is given of them: %s", where, ", ".join(empty))
    return samples.take(some.nonzero().flatten())


def _labels(content: Mapping[str, Any], where: str) -> Tensor:
    key = next((key for key in _LABELS if key in content), None)
    if key is None:
        raise ValueError(f"{where}: expected {' or '.join(map(repr, _LABELS))}, got {[*content]}")
    values = _floats(content[key], f"{where}, {key}")
    if values.ndim == 0 or values.size != len(values):
        raise ValueError(f"{where}, {key}: expected one number a sample, got {values.shape}")
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values))
        raise ValueError(f"{where}, {key}: expected finite numbers, row {rows[0]} holds none")
    return torch.from_numpy(values.reshape(-1))


def _names(value: Any, samples: int, where: str) -> tuple[str, ...]:
    if value is None:
        return tuple(f"{row}" for row in range(samples))
    if len(value) != samples:
        raise ValueError(f"{where}, id: expected {samples} names as labels, got {len(value)}")
    # Some files name a sample by video, start and end.
    return tuple("_".join(map(str, np.ravel(name))) for name in value)


def _modality(
    content: Mapping[str, Any], name: str, samples: Sequence[str], where: str
) -> tuple[Tensor, Tensor]:
    """Read one modality: frames (N, T, F), finite, 0 where they do not count, and which count."""
    if name not in content:
        raise ValueError(f"{where}: expected features of that name, got {[*content]}")
    frames = _floats(content[name], where)
    if frames.ndim != 3 or len(frames) != len(samples) or 0 in frames.shape[1:]:
        raise ValueError(
            f"{where}: expected features of shape ({len(samples)} samples, frames, features), "
            f"got {frames.shape}"
        )
    lengths = _lengths(content, name, samples, frames.shape[1], where)
    inside = np.ones(frames.shape[:2], bool) if lengths is None else lengths
    odd = ~np.isfinite(frames)
    count = int(odd[inside].sum())
    if count:
        logger.warning(
            "%s: %d of %d features are NaN or infinite and become 0", where, count, odd[inside].size
        )
    frames[odd | ~inside[:, :, None]] = 0
    some = (frames != 0).any(2)
    valid = some if lengths is None else inside & some.any(1, keepdims=True)
    return torch.from_numpy(frames), torch.from_numpy(valid)


def _lengths(
    content: Mapping[str, Any], name: str, samples: Sequence[str], frames: int, where: str
) -> np.ndarray | None:
    """Tell which frames are not padding, (N, T) bool; None = the file does not say."""
    if f"{name}_lengths" not in content:
        tokens = content.get(f"{name}_bert")
        known = tokens is not None and tokens.shape == (len(samples), 3, frames)
        return tokens[:, 1] != 0 if known else None
    lengths = _floats(content[f"{name}_lengths"], f"{where}_lengths").reshape(-1)
    if len(lengths) != len(samples):
        raise ValueError(f"{where}_lengths: expected {len(samples)} numbers, got {len(lengths)}")
    for sample, length in zip(samples, lengths.tolist(), strict=True):
        if not (0 <= length <= frames and length == int(length)):
            raise ValueError(
                f"{where}_lengths, sample {sample}: expected a whole number from 0 to {frames}, "
                f"the frames of {name}, got {length:g}"
            )
    return np.arange(frames) < lengths[:, None]


def _floats(value: Any, where: str) -> np.ndarray:
    """Copy numbers into float32; what is too large for it becomes infinite."""
    try:
        with np.errstate(over="ignore"):
            return np.array(value, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: expected an array of numbers ({error})") from error
