from __future__ import annotations

import numpy as np
import pytest

from bundle.phantom.icbm152.head import Tissue
from bundle.phantom.icbm152.signal import (
    PulseSequence,
    draw_relaxation,
    draw_sequences,
    sequence_of,
    signal_of,
)

FLUID, GREY, WHITE, OEDEMA, RIM = (
    Tissue.FLUID,
    Tissue.GREY,
    Tissue.WHITE,
    Tissue.OEDEMA,
    Tissue.RIM,
)


@pytest.fixture(scope="module")
def drawn():
    """Modality to (200, 16) signals by the tissue's number, of as many persons and scanners."""
    signals = {name: np.zeros((200, 16)) for name in ("t1", "t1ce", "t2", "flair")}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        tissues, sequences = draw_relaxation(rng), draw_sequences(rng)
        for name, rows in signals.items():
            for tissue, values in tissues.items():
                rows[seed, tissue] = signal_of(sequences[name], values)
    return signals


@pytest.mark.parametrize(
    ("modality", "brighter", "darker"),
    [
        ("t1", WHITE, GREY),
        ("t1", GREY, FLUID),
        ("t1", WHITE, OEDEMA),
        ("t2", FLUID, GREY),
        ("t2", GREY, WHITE),
        ("t2", OEDEMA, GREY),
        ("flair", GREY, FLUID),
        ("flair", WHITE, FLUID),
        ("flair", OEDEMA, GREY),
        ("flair", OEDEMA, WHITE),
    ],
)
def test_tissues_are_in_order(drawn, modality, brighter, darker):
    signals = drawn[modality]
    assert (signals[:, brighter] > signals[:, darker]).mean() >= 0.98


def test_contrast_agent_lights_the_rim_and_nothing_healthy(drawn):
    assert (drawn["t1ce"][:, RIM] > drawn["t1ce"][:, WHITE]).mean() >= 0.95
    assert (drawn["t1"][:, RIM] < drawn["t1"][:, WHITE]).mean() >= 0.98
    assert (drawn["t1ce"] >= drawn["t1"] - 1e-12).all()
    healthy = [FLUID, GREY, WHITE]
    np.testing.assert_allclose(drawn["t1ce"][:, healthy], drawn["t1"][:, healthy], rtol=0.06)


def test_a_spin_echo_is_exact():
    tissue = np.array([0.5, 1000.0, 100.0, 1000.0])
    wanted = 0.5 * (1 - np.exp(-0.5)) * np.exp(-0.2)
    assert signal_of(PulseSequence(500, 20), tissue) == pytest.approx(wanted)


def test_an_inversion_nulls_what_relaxes_with_it():
    tissue = np.array([1.0, 1000.0, 100.0, 1000.0])
    nulled = PulseSequence(1e6, 20, inversion=1000 * np.log(2))
    assert signal_of(nulled, tissue) == pytest.approx(0, abs=1e-9)


def test_a_name_decides_its_sequence():
    own = draw_sequences(np.random.default_rng(0))
    assert sequence_of("t1c", own) is own["t1ce"]
    assert sequence_of("t2f", own) is own["flair"]
    other = draw_sequences(np.random.default_rng(1))
    assert sequence_of("adc", own) == sequence_of("adc", other)
    assert sequence_of("adc", own) != sequence_of("pd", own)
