"""The contrast of a phantom head: tissue parameters and a pulse sequence give an intensity.

The signal is that of a spin echo, with an inversion pulse where the sequence has one (FLAIR). No
modality is drawn by hand, so each is ambiguous for the reason the real one is: fluid and oedema are
both bright on T2, vessels and an enhancing rim both take up contrast agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from bundle.modalities import FILE_SUFFIXES
from bundle.phantom.anatomy import Anatomy, Tissue, smooth_noise

# Proton density (1 = water), T1 and T2 in ms, and T1 in ms after contrast agent; round values.
TISSUES: Mapping[Tissue, tuple[float, float, float, float]] = {
    Tissue.FLUID: (1.00, 4000, 500, 4000),
    Tissue.GREY: (0.82, 1100, 95, 1050),
    Tissue.WHITE: (0.70, 620, 75, 615),
    Tissue.VESSEL: (0.80, 1200, 55, 400),
    Tissue.SPOT: (0.80, 1000, 130, 990),
    Tissue.OEDEMA: (0.84, 1150, 140, 1130),
    Tissue.RIM: (0.81, 1150, 98, 470),
    Tissue.NECROSIS: (0.93, 2500, 280, 2400),
    Tissue.SOLID: (0.86, 1600, 150, 1400),
}
TUMOUR = (Tissue.OEDEMA, Tissue.RIM, Tissue.NECROSIS, Tissue.SOLID)


@dataclass(frozen=True)
class PulseSequence:
    """A pulse sequence; times in ms, no inversion pulse where `inversion` is 0."""

    repetition: float
    echo: float
    inversion: float = 0.0
    has_agent: bool = False


SEQUENCES: Mapping[str, PulseSequence] = {
    "t1": PulseSequence(repetition=550, echo=12),
    "t1ce": PulseSequence(repetition=550, echo=12, has_agent=True),
    "t2": PulseSequence(repetition=5000, echo=100),
    "flair": PulseSequence(repetition=9000, echo=110, inversion=2400),
}


def sequence_of(modality: str) -> PulseSequence:
    """Find the sequence of a BraTS modality under any of its names, or make one up from the name.

    The made-up one depends on the letters alone, so a modality looks the same in every run.
    """
    for name, suffixes in FILE_SUFFIXES.items():
        if modality in (name, *suffixes):
            return SEQUENCES[name]
    rng = np.random.default_rng(list(sha256(modality.encode()).digest()))
    repetition = float(np.exp(rng.uniform(np.log(600), np.log(6000))))
    return PulseSequence(
        repetition, echo=float(rng.uniform(15, 110)), has_agent=bool(rng.random() < 0.2)
    )


def signal_of(sequence: PulseSequence, tissues: np.ndarray) -> np.ndarray:
    """Compute the spin-echo signal of each tissue.

    Args:
        sequence: the pulse sequence.
        tissues: (N, 4) proton density, T1, T2, T1 after contrast agent.

    Returns:
        (N,) float, 1 = the signal of water, fully relaxed.
    """
    density, t1, t2, t1_agent = tissues.T
    t1 = t1_agent if sequence.has_agent else t1
    recovered = 1 - np.exp(-sequence.repetition / t1)
    if sequence.inversion:
        recovered = 1 - 2 * np.exp(-sequence.inversion / t1) + np.exp(-sequence.repetition / t1)
    return density * np.abs(recovered) * np.exp(-sequence.echo / t2)


def draw_tissues(rng: Generator, difficulty: float) -> np.ndarray:
    """Draw one patient's tissue parameters: (number of `Tissue`, 4), as in `signal_of`.

    They are up to 8 % off the table at difficulty 1, and the table's own at 0.
    """
    table = np.array([TISSUES.get(tissue, (0, 1, 1, 1)) for tissue in Tissue], dtype=float)
    return table * rng.uniform(1 - 0.08 * difficulty, 1 + 0.08 * difficulty, table.shape)


def acquire(
    rng: Generator, anatomy: Anatomy, modality: str, tissues: np.ndarray, difficulty: float
) -> np.ndarray:
    """Acquire an image of a head without noise.

    Args:
        rng: the source of randomness.
        anatomy: the head.
        modality: names the pulse sequence.
        tissues: the patient's tissue parameters, as `draw_tissues` gives them.
        difficulty: 0..1; lowers the tumour's contrast, by more in some modalities than in others.

    Returns:
        (D, H, W) float32, 1 = the signal of water; blurred a little beyond the brain.
    """
    signal = signal_of(sequence_of(modality), tissues)
    conspicuity = np.ones(len(Tissue))
    for tissue in TUMOUR:
        conspicuity[tissue] = 1 - difficulty * rng.uniform(0.0, 0.55)
    share = conspicuity[anatomy.tumour] * anatomy.density
    clean = (1 - share) * signal[anatomy.host] + share * signal[anatomy.tumour]

    size = len(clean)
    clean *= 1 + 0.06 * difficulty * smooth_noise(rng, size, 1.2)
    return ndimage.gaussian_filter(clean.astype(np.float32), 0.55)


def develop(rng: Generator, clean: np.ndarray, brain: np.ndarray, difficulty: float) -> np.ndarray:
    """Add bias field and Rician noise to a noise-free image, and store it in arbitrary units.

    Args:
        rng: the source of randomness.
        clean: (D, H, W) float, noise-free signal.
        brain: (D, H, W) bool, True = inside the brain.
        difficulty: 0..1; raises noise and bias.

    Returns:
        (D, H, W) float32 whole numbers from 1 to 32767 inside the brain, exactly 0 outside.
    """
    coarse = rng.standard_normal((3, 3, 3))
    zoom = [n / 3 for n in clean.shape]
    bias = ndimage.zoom(coarse, zoom, order=3, mode="nearest", grid_mode=True)
    clean = clean * np.exp(0.12 * (0.3 + 0.7 * difficulty) * bias)

    sigma = clean[brain].std() * (0.06 + 0.3 * difficulty) * rng.uniform(0.7, 1.3)
    real, imaginary = sigma * rng.standard_normal((2, *clean.shape))
    noisy = np.hypot(clean + real, imaginary)
    gain = rng.uniform(300, 900) / noisy[brain].mean()
    return np.where(brain, np.clip(np.rint(noisy * gain), 1, 32767), 0).astype(np.float32)
