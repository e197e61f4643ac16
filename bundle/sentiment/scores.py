"""How well a number from -3 to 3 is predicted: the scores that papers on CMU-MOSI report."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cosine_similarity

HIGHEST = 3.0


@dataclass(frozen=True)
class RegressionScore:
    """The scores of one model on one subset of the modalities.

    Attributes:
        training: what was scored, such as "decoupled".
        subset: such as "text+audio".
        cases: how many samples can form the subset; 0 = the scores are None.
        mae: mean absolute error, unit of the labels.
        correlation: Pearson's, -1 to 1; 0 where predictions or labels are constant.
        accuracy_2: 0 to 1, how often the sign is right, labels of exactly 0 left out; None = there
            is no other label. A prediction of exactly 0 counts as negative.
        accuracy_7: 0 to 1, how often both round to the same of -3, -2 to 3.
    """

    training: str
    subset: str
    cases: int
    mae: float | None
    correlation: float | None
    accuracy_2: float | None
    accuracy_7: float | None


def regression_score(
    training: str, subset: str, prediction: Tensor, label: Tensor
) -> RegressionScore:
    """Score predictions.

    Args:
        training, subset: as in `RegressionScore`.
        prediction: (N,) float, finite.
        label: (N,) float, finite; numbers beyond -3 and 3 round to these.

    Returns:
        The scores; none is NaN.

    Raises:
        ValueError: the two differ in shape.
    """
    if prediction.shape != label.shape or label.ndim != 1:
        raise ValueError(
            f"expected predictions and labels of one shape (N,), got {tuple(prediction.shape)} "
            f"and {tuple(label.shape)}"
        )
    if not len(label):
        return RegressionScore(training, subset, 0, None, None, None, None)
    prediction, label = prediction.double(), label.double()
    signed = label != 0
    right = (prediction > 0) == (label > 0)
    classes = [values.clamp(-HIGHEST, HIGHEST).round() for values in (prediction, label)]
    return RegressionScore(
        training=training,
        subset=subset,
        cases=len(label),
        mae=float((prediction - label).abs().mean()),
        correlation=_correlation(prediction, label),
        accuracy_2=float(right[signed].double().mean()) if bool(signed.any()) else None,
        accuracy_7=float((classes[0] == classes[1]).double().mean()),
    )


def _correlation(one: Tensor, other: Tensor) -> float:
    # The mean of equal numbers may differ from them by rounding, which would correlate too.
    if bool((one == one[0]).all()) or bool((other == other[0]).all()):
        return 0.0
    return float(cosine_similarity(one - one.mean(), other - other.mean(), dim=0))
