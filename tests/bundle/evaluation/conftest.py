"""Score rows that several tests of this folder average or tabulate."""

from __future__ import annotations

import pytest

from bundle.evaluation.metrics import Score
from bundle.modalities import BRATS_MODALITIES, all_subsets, subset_name
from bundle.regions import BRATS_REGIONS


@pytest.fixture
def small_rows():
    """Give small_rows(hd95): two cases, two modalities and one region."""

    def make(hd95: float = 2.0) -> list[Score]:
        return [
            Score("a", "ct", "tumour", 0.5, hd95),
            Score("b", "ct", "tumour", 0.7, hd95 * 2),
            Score("a", "ct+pet", "tumour", 0.9, hd95),
        ]

    return make


@pytest.fixture
def brats_rows():
    """One case with a Dice of 1/4 for each modality that was given."""
    return [
        Score("a", subset_name(subset, BRATS_MODALITIES), region, 0.25 * len(subset), 1.0)
        for subset in all_subsets(BRATS_MODALITIES)
        for region in BRATS_REGIONS
    ]
