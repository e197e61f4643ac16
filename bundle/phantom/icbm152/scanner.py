"""A scanner: how it takes an image of a head, with its own contrast, noise, bias and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from bundle.phantom.icbm152.head import Head, Tissue
from bundle.phantom.icbm152.signal import PulseSequence, draw_sequences, sequence_of, signal_of

SNR = (20.0, 40.0)
SLICES_MM = (1.0, 6.0)
_HIGHEST = 32767


@dataclass(frozen=True)
class Scanner:
    """One scanner.

    Attributes:
        sequences: of the BraTS modalities.
        gain: stored value of the mean signal of a brain.
        bias: standard deviation of the logarithm of the bias field.
        snr: mean signal of the brain over the standard deviation of the noise, in a stored voxel.
        blur_mm: standard deviation of the in-plane blur.
        slices_mm: thickness of the slices of T1 and T1ce, and of all others.
    """

    sequences: Mapping[str, PulseSequence]
    gain: float
    bias: float
    snr: float
    blur_mm: float
    slices_mm: tuple[float, float]


def draw_scanner(rng: Generator, has_thick_slices: bool = False) -> Scanner:
    """Draw a scanner.

    Args:
        rng: the source of randomness.
        has_thick_slices: True = slices of 1 to 6 mm, T1 thinner than the others; False = a voxel.
    """
    sequences = draw_sequences(rng)
    gain = float(np.exp(rng.uniform(np.log(150), np.log(1500))))
    bias, snr, blur = rng.uniform(0.03, 0.12), rng.uniform(*SNR), rng.uniform(0.2, 0.6)
    others = float(rng.uniform(*SLICES_MM))
    t1 = float(rng.uniform(SLICES_MM[0], others))
    return Scanner(
        sequences, gain, bias, snr, blur, (t1, others) if has_thick_slices else (0.0, 0.0)
    )


def take_image(
    rng: Generator,
    scanner: Scanner,
    modality: str,
    head: Head,
    tissues: Mapping[Tissue, np.ndarray],
    slab: Sequence[int],
    has_air: bool = False,
) -> np.ndarray:
    """Take an image of a head.

    Args:
        rng: the source of randomness.
        scanner: what takes it.
        modality: names the pulse sequence.
        head: on the working grid.
        tissues: as `draw_relaxation` gives them.
        slab: working voxels that are averaged into one along each axis.
        has_air: True = noise outside of the head; False = 0 outside of the brain.

    Returns:
        (D, H, W) float32 whole numbers of the stored grid, from 1 to 32767 in the brain.
    """
    sequence = sequence_of(modality, scanner.sequences)
    clean = np.zeros(head.brain.shape, np.float32)
    for tissue, share in head.shares.items():
        clean += share * np.float32(signal_of(sequence, tissues[tissue]))
    clean *= 1 + head.texture
    clean = blur(clean, scanner, modality, head.spacing_mm)
    image = pool(clean, slab)
    brain = pool(head.brain.astype(np.float32), slab) > 0.5
    coarse = rng.standard_normal((4, 4, 4))
    zoom = [n / 4 for n in image.shape]
    bias = ndimage.zoom(coarse, zoom, order=3, mode="nearest", grid_mode=True)
    image = image * np.exp(scanner.bias * bias)
    mean = image[brain].mean()
    sigma = mean / scanner.snr
    real, imaginary = sigma * rng.standard_normal((2, *image.shape), dtype=np.float32)
    stored = np.rint(np.hypot(image + real, imaginary) * (scanner.gain / mean))
    stored = np.clip(stored, 0, _HIGHEST)
    # 0 means that nothing was scanned, which is not so within the brain.
    outside = stored if has_air else np.zeros_like(stored)
    return np.where(brain, np.maximum(stored, 1), outside).astype(np.float32)


def blur(clean: np.ndarray, scanner: Scanner, modality: str, spacing_mm: float) -> np.ndarray:
    """Blur in the plane, and average over the thickness of a slice, interpolated back."""
    sigma = scanner.blur_mm / spacing_mm
    blurred = ndimage.gaussian_filter(clean, (sigma, sigma, 0), truncate=3.0)
    is_t1 = sequence_of(modality, scanner.sequences).repetition < 2000
    thick = round(scanner.slices_mm[0 if is_t1 else 1] / spacing_mm)
    if thick <= 1:
        return blurred
    # The mean over a slice at every voxel is what interpolation between slices would give. An even
    # number of voxels has halves at both ends: an image must not move against its labels.
    slice_of = np.ones(thick + 1 - thick % 2)
    if thick % 2 == 0:
        slice_of[[0, -1]] = 0.5
    return ndimage.correlate1d(blurred, slice_of / thick, axis=2)


def pool(volume: np.ndarray, slab: Sequence[int]) -> np.ndarray:
    """Merge slabs of voxels into their mean: (D, H, W) float32."""
    counts = [n // s for n, s in zip(volume.shape, slab, strict=True)]
    whole = volume[tuple(slice(n * s) for n, s in zip(counts, slab, strict=True))]
    blocks = whole.reshape([edge for pair in zip(counts, slab, strict=True) for edge in pair])
    return blocks.mean((1, 3, 5), dtype=np.float32)
