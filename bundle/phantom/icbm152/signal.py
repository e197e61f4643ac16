"""The signal of each tissue: relaxation times and a pulse sequence give an intensity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.random import Generator

from bundle.modalities import FILE_SUFFIXES
from bundle.phantom.icbm152.head import Tissue

# Proton density (1 = water), T1 and T2 in ms, and T1 in ms after contrast agent; round values for
# 1.5 to 3 tesla. T2 of fluid is what flow and partial volume leave of 2 s.
RELAXATION: Mapping[Tissue, tuple[float, float, float, float]] = {
    Tissue.FLUID: (1.00, 4000, 900, 4000),
    Tissue.GREY: (0.82, 1250, 87, 1200),
    Tissue.WHITE: (0.71, 780, 76, 770),
    Tissue.VESSEL: (0.65, 1500, 50, 330),
    Tissue.DURA: (0.62, 1000, 55, 340),
    Tissue.SPOT: (0.80, 1150, 125, 1130),
    Tissue.OEDEMA: (0.84, 1450, 160, 1420),
    Tissue.RIM: (0.83, 1400, 122, 430),
    Tissue.NECROSIS: (0.93, 1900, 250, 1800),
    Tissue.SOLID: (0.87, 1600, 160, 1450),
    Tissue.BLOOD: (0.80, 650, 70, 620),
    Tissue.CALCIUM: (0.35, 900, 45, 900),
    Tissue.BONE: (0.10, 500, 15, 480),
    Tissue.SCALP: (0.90, 320, 85, 310),
    Tissue.EYE: (1.00, 3600, 800, 3600),
}
# How much they differ between persons: the logarithm's standard deviation.
_OF_HEALTHY, _OF_TUMOUR = 0.03, 0.07
_TUMOUR = (Tissue.OEDEMA, Tissue.RIM, Tissue.NECROSIS, Tissue.SOLID, Tissue.BLOOD)
# Nobody's contrast agent makes a rim darker.
_AGENT_COLUMN = 3


@dataclass(frozen=True)
class PulseSequence:
    """A pulse sequence.

    Attributes:
        repetition, echo: times, ms.
        inversion: time, ms; 0 = no inversion pulse.
        flip: angle of the excitation, degrees; 90 = a spin echo.
        has_agent: True = after contrast agent.
    """

    repetition: float
    echo: float
    inversion: float = 0.0
    flip: float = 90.0
    has_agent: bool = False


def draw_sequences(rng: Generator) -> dict[str, PulseSequence]:
    """Draw how a scanner takes the four scans: it may take T1 with a gradient or a spin echo."""
    if rng.random() < 0.5:
        t1 = PulseSequence(rng.uniform(7.5, 12), rng.uniform(2.5, 4.5), flip=rng.uniform(15, 22))
    else:
        t1 = PulseSequence(rng.uniform(450, 700), rng.uniform(9, 15))
    return {
        "t1": t1,
        "t1ce": replace(t1, has_agent=True),
        "t2": PulseSequence(rng.uniform(4000, 6500), rng.uniform(85, 115)),
        "flair": PulseSequence(
            rng.uniform(8500, 10000), rng.uniform(100, 140), inversion=rng.uniform(2350, 2550)
        ),
    }


def sequence_of(modality: str, sequences: Mapping[str, PulseSequence]) -> PulseSequence:
    """Find the sequence of a BraTS modality under any of its names, or make one up from the name.

    The made-up one depends on the letters alone, so a modality looks the same in every run.
    """
    for name, suffixes in FILE_SUFFIXES.items():
        if modality in (name, *suffixes):
            return sequences[name]
    rng = np.random.default_rng(list(sha256(modality.encode()).digest()))
    repetition = float(np.exp(rng.uniform(np.log(600), np.log(6000))))
    return PulseSequence(
        repetition, float(rng.uniform(15, 110)), has_agent=bool(rng.random() < 0.2)
    )


def draw_relaxation(rng: Generator) -> dict[Tissue, np.ndarray]:
    """Draw one person's tissues: (4,) float each, as in `RELAXATION`."""
    drawn = {}
    for tissue, values in RELAXATION.items():
        spread = _OF_TUMOUR if tissue in _TUMOUR else _OF_HEALTHY
        density = values[0] * np.exp(0.3 * spread * rng.standard_normal())
        times = np.array(values[1:3]) * np.exp(spread * rng.standard_normal(2))
        # What the agent does to a tissue goes with what the tissue is.
        after = values[3] / values[1] * times[0]
        if tissue is Tissue.RIM:
            after *= np.exp(0.2 * rng.standard_normal())
        drawn[tissue] = np.array([min(density, 1.0), *times, min(after, times[0])])
    return drawn


def signal_of(sequence: PulseSequence, tissue: np.ndarray) -> float:
    """Compute a tissue's signal, 1 = that of water, fully relaxed.

    Args:
        sequence: the pulse sequence.
        tissue: (4,) proton density, T1, T2 and T1 after contrast agent.

    Source: Bernstein et al., Handbook of MRI Pulse Sequences, 2004: spoiled gradient echo, spin
        echo (a flip angle of 90 degrees) and inversion recovery.
    """
    density, t1, t2, t1_agent = tissue
    t1 = t1_agent if sequence.has_agent else t1
    kept = np.exp(-sequence.repetition / t1)
    echo = np.exp(-sequence.echo / t2)
    if sequence.inversion:
        return density * abs(1 - 2 * np.exp(-sequence.inversion / t1) + kept) * echo
    flip = np.deg2rad(sequence.flip)
    return density * np.sin(flip) * (1 - kept) / (1 - np.cos(flip) * kept) * echo
