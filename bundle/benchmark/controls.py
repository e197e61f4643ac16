"""The controls: a method with one part changed, and the work of that part spent on steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bundle.benchmark.named_runs import CHANGED, pretrained, single
from bundle.benchmark.plan import GMD_NOT_DECOUPLED, PCGRAD_UNET, Training


@dataclass(frozen=True)
class Control:
    """A method with something changed.

    Attributes:
        whole: the method, which is what it is compared with.
        base: whose configs it has; "universal" = train.json itself.
        first: ids of its pre-training and their values; None = it has no pre-training.
        second: ids of its training and their values.
    """

    whole: str
    base: str
    first: Mapping[str, Any] | None = None
    second: Mapping[str, Any] = field(default_factory=dict)

    def stages(self, budget: float) -> tuple[Training, ...]:
        """Plan its trainings, which share a budget."""
        if self.first is not None:
            return pretrained(budget, self.first, self.second)
        return single(self.base, budget, self.second)


_AVERAGE = {"average_decay": 0.998}
_NO_TEACHER = {"data_side": False, "model_side": False, "method#rebuilding_weight": 0.0}

# By label. Those of the baseline tell what one part alone brings to it.
CONTROLS: Mapping[str, Control] = {
    "dropout + hypernetwork": Control("modality_dropout", "universal", second=_NO_TEACHER),
    "dropout + half a batch whole": Control(
        "modality_dropout", "modality_dropout", second={"whole_share": 0.5}
    ),
    "universal, no pre-training": Control("universal", "universal"),
    "universal, no data side": Control("universal", "universal", {}, {"data_side": False}),
    "universal, neither": Control("universal", "universal", second={"data_side": False}),
    "universal, no hypernetwork": Control("universal", "universal", {}, {"hypernetwork": False}),
    "dropout, average of the weights": Control(
        "modality_dropout", "modality_dropout", second=_AVERAGE
    ),
    "universal, average of the weights": Control("universal", "universal", {}, _AVERAGE),
    "LCKD, average of the weights": Control("LCKD", "LCKD", second=_AVERAGE),
    "GMD, average of the weights": Control("GMD", "GMD", second=_AVERAGE),
    "LCKD, no distillation": Control("LCKD", "LCKD", second={"distillation_weight": 0}),
    GMD_NOT_DECOUPLED: Control("GMD", "GMD", second=CHANGED[GMD_NOT_DECOUPLED]),
    PCGRAD_UNET: Control("GMD", "GMD", second=CHANGED[PCGRAD_UNET]),
}
