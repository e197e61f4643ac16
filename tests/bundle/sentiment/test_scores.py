from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.sentiment.scores import regression_score


def test_exact_numbers():
    label = torch.tensor([-2.0, -0.4, 0.0, 1.0, 3.0])
    prediction = torch.tensor([-1.6, 0.6, 2.0, 1.4, 9.0])
    score = regression_score("plain", "text", prediction, label)
    assert (score.training, score.subset, score.cases) == ("plain", "text", 5)
    assert score.mae == pytest.approx((0.4 + 1 + 2 + 0.4 + 6) / 5)
    assert score.correlation == pytest.approx(np.corrcoef(prediction, label)[0, 1])
    # Of four labels with a sign only that of -0.4 is missed.
    assert score.accuracy_2 == 0.75
    # -2, 1 and 3 (9 counts as 3) agree; 1 against 0 and 2 against 0 do not.
    assert score.accuracy_7 == 0.6


def test_the_correlation_knows_neither_offset_nor_scale():
    label = torch.linspace(-3, 3, 50).double()
    assert regression_score("", "", 1e4 + 1e-3 * label, label).correlation == pytest.approx(1)
    assert regression_score("", "", -label, label).correlation == pytest.approx(-1)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3])
def test_constant_predictions_or_labels_correlate_with_nothing(value):
    constant, other = torch.full((7,), value), torch.linspace(-1, 1, 7)
    assert regression_score("", "", constant, other).correlation == 0
    assert regression_score("", "", other, constant).correlation == 0


def test_labels_without_sign_and_no_labels_give_none_not_nan():
    zero = torch.zeros(3)
    score = regression_score("", "", zero, zero)
    assert (score.mae, score.accuracy_2, score.accuracy_7) == (0, None, 1)
    empty = regression_score("plain", "audio", zero[:0], zero[:0])
    assert (empty.cases, empty.mae, empty.correlation) == (0, None, None)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"one shape \(N,\), got \(3, 1\) and \(3,\)"):
        regression_score("", "", torch.zeros(3, 1), torch.zeros(3))
