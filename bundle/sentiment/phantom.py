"""A made-up sentiment set in the layout that CMU-MOSI features have.

Every section is made from its own seed, so it is the same whatever else the file holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bundle.sentiment.files import SECTIONS, Layout, write_layout

# As many as CMU-MOSI has.
DEFAULT_SAMPLES: Mapping[str, int] = {"train": 1284, "valid": 229, "test": 686}

# Modality -> its features, its longest sequence in frames, and its share of the sentiment's
# variance: the text tells most of it, as in CMU-MOSI.
_MODALITIES: Mapping[str, tuple[int, int, float]] = {
    "text": (32, 20, 0.6),
    "audio": (5, 30, 0.25),
    "vision": (20, 30, 0.15),
}
_SENTIMENT_DEVIATION = 1.6
# Five people rate a sample from -3 to 3 in CMU-MOSI, and the mean is the label.
_LABEL_STEP = 0.2
_HIGHEST_LABEL = 3.0
_FRAME_NOISE = 1.5


def write_feature_phantom(
    path: str | Path, samples: Mapping[str, int] = DEFAULT_SAMPLES, seed: int = 0
) -> None:
    """Write a set of samples whose modalities each tell a part of the sentiment.

    Args:
        path: an .npz file, replaced.
        samples: how many in "train", "valid" and "test".
        seed: of everything random.

    Raises:
        ValueError: a section is missing, unknown or empty, or `path` does not end in .npz.
    """
    write_layout(make_feature_phantom(samples, seed), path)


def make_feature_phantom(samples: Mapping[str, int] = DEFAULT_SAMPLES, seed: int = 0) -> Layout:
    """Make the set as `bundle.sentiment.files` lays it out.

    The sentiment is a sum of independent parts, one for each modality: no modality holds what
    another one does. A part moves the frames of its modality along a fixed direction of the
    features, more in some frames than in others, among noise. Each feature has an offset and a
    scale of its own. Lengths differ from sample to sample.

    Args:
        samples: how many in "train", "valid" and "test".
        seed: of everything random.

    Returns:
        `text` (N, 20, 32), `audio` (N, 30, 5) and `vision` (N, 30, 20) float32, 0 in the padding,
        with their `..._lengths`; `regression_labels` (N,) float32, -3 to 3 in steps of 0.2; `id`.

    Raises:
        ValueError: a section is missing, unknown or empty.
    """
    if set(samples) != set(SECTIONS) or min(samples.values()) < 1:
        raise ValueError(f"expected samples in each of {list(SECTIONS)}, got {dict(samples)}")
    looks = {name: _look(name, seed) for name in _MODALITIES}
    return {section: _section(section, samples[section], seed, looks) for section in SECTIONS}


def _look(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw what a modality's features look like: direction of its part, offset and scale (F,)."""
    features = _MODALITIES[name][0]
    rng = np.random.default_rng([seed, len(SECTIONS), list(_MODALITIES).index(name)])
    direction = rng.standard_normal(features)
    return (
        direction / np.linalg.norm(direction),
        rng.normal(0, 5, features),
        np.exp(rng.normal(0, 1, features)),
    )


def _section(
    section: str, samples: int, seed: int, looks: Mapping[str, tuple[np.ndarray, ...]]
) -> dict[str, object]:
    rng = np.random.default_rng([seed, SECTIONS.index(section)])
    sentiment = np.zeros(samples)
    content: dict[str, object] = {"id": [f"{section}$_${sample}" for sample in range(samples)]}
    for name, (_, longest, share) in _MODALITIES.items():
        part = rng.standard_normal(samples)
        sentiment += math.sqrt(share) * part
        lengths = rng.integers(longest // 3, longest + 1, samples)
        content[name] = _frames(part, lengths, longest, looks[name], rng)
        content[f"{name}_lengths"] = lengths.tolist()
    rating = np.clip(_SENTIMENT_DEVIATION * sentiment, -_HIGHEST_LABEL, _HIGHEST_LABEL)
    content["regression_labels"] = (np.rint(rating / _LABEL_STEP) * _LABEL_STEP).astype(np.float32)
    return content


def _frames(
    part: np.ndarray,
    lengths: np.ndarray,
    longest: int,
    look: tuple[np.ndarray, ...],
    rng: np.random.Generator,
) -> np.ndarray:
    """Make one modality of all samples: (N, T, F) float32, 0 from each sample's length on."""
    direction, offset, scale = look
    shape = len(part), longest
    strength = 2 * rng.random(shape) * part[:, None]
    frames = strength[:, :, None] * direction
    frames += _FRAME_NOISE * rng.standard_normal((*shape, len(direction)))
    # Frames of one sample err together too, so that a longer sequence does not tell everything.
    frames += 0.5 * rng.standard_normal((len(part), 1, len(direction)))
    frames = offset + scale * frames
    inside = np.arange(longest) < lengths[:, None]
    return (frames * inside[:, :, None]).astype(np.float32)
