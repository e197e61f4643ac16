"""Stage 2: complete each training case, then distil the complete view into the incomplete one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bundle.losses.distillation import confidence, feature_distance, soft_label_distance
from bundle.losses.rebuilding import rebuilding_error
from bundle.methods.base import Method
from bundle.methods.drawing import Drawing
from bundle.modalities import brain_mask, fill_in, keep_only


class CoDistillation(Method):
    """Train a universal network on incomplete cases.

    The *student* sees a random subset of what each case has, and learns from the labels. For a
    share of the cases, drawn anew at every step, it also rebuilds the scans, and there is a second
    view.

    *Data side*: the teacher's autoencoder completes the chosen cases, present voxels staying as
    they are, and the network learns from the labels on the completed cases too. *Model side*: a
    *teacher*, the moving average of the network, sees the completed case (without the data side:
    all that the case has) and hands on soft labels and bottleneck features, weighted by how right
    it is.

    Args:
        network: a `bundle.networks.universal.UniversalNetwork`.
        criteria: loss terms by name, each called with (list of logits, label).
        prompts: (S, S - 1) coordinates of a prompt bank for the hypernetwork; None = leave what is
            there.
        data_side, model_side: switch a side off.
        second_share: share of a batch's cases that get a second view, at least one case.
        soft_label_weight, feature_weight, rebuilding_weight: of the terms; 0 = not computed.
        temperature: of the soft labels.
        memory: of the moving average, per step; it is shorter during the first steps.
        drawing: how the student's subset is drawn; None = uniformly.

    Raises:
        ValueError: `second_share` or `memory` outside its range, or prompts of another shape.

    Source: our reading of data-model co-distillation of arXiv 2406.01987, design.md section 1.1.
    """

    def __init__(
        self,
        network: nn.Module,
        criteria: Mapping[str, nn.Module],
        prompts: Tensor | None = None,
        data_side: bool = True,
        model_side: bool = True,
        second_share: float = 0.5,
        soft_label_weight: float = 1.0,
        feature_weight: float = 0.1,
        rebuilding_weight: float = 0.1,
        temperature: float = 2.0,
        memory: float = 0.99,
        drawing: Drawing | None = None,
    ) -> None:
        super().__init__(network)
        if not 0 < second_share <= 1 or not 0 <= memory < 1:
            raise ValueError(
                "expected second_share above 0 and up to 1 and memory from 0 to below 1, got "
                f"{second_share} and {memory}. Correct them; data_side and model_side switch off."
            )
        self.installed = prompts is not None and network.hypernetwork is not None
        if self.installed:
            network.hypernetwork.install(prompts)
        self.criteria = nn.ModuleDict(criteria)
        self.drawing = drawing or Drawing()
        self.data_side = data_side
        self.model_side = model_side
        self.second_share = second_share
        self.soft_label_weight = soft_label_weight
        self.feature_weight = feature_weight
        self.rebuilding_weight = rebuilding_weight
        self.temperature = temperature
        self.teacher: AveragedModel | None = None
        if data_side or model_side:
            self.teacher = AveragedModel(network, multi_avg_fn=_MovingAverage(memory))
            self.teacher.requires_grad_(False)

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the terms of both views as switched on; shapes as in `Method.losses`."""
        present, label = batch["present"], batch["label"].float()
        image = keep_only(batch["image"], present)
        brain = brain_mask(image, present)
        keep = self.drawing(present)
        features = self.network.encode(image, keep)
        logits = self.network.decode(features, keep)
        losses = {name: criterion(logits, label) for name, criterion in self.criteria.items()}
        # What follows is for the chosen cases alone: it costs, and an epoch reaches all of them.
        chosen = self._choose(len(image)).to(image.device)
        features = [level[chosen] for level in features]
        image, present, brain, label = image[chosen], present[chosen], brain[chosen], label[chosen]
        if self.rebuilding_weight:
            rebuilt = self.network.autoencoder.rebuild(features)
            error = rebuilding_error(rebuilt, image, present, brain)
            losses["rebuilding"] = self.rebuilding_weight * error
        view = image, present
        if self.data_side:
            view = self._complete(image, present)
            losses |= self._from_completed(*view, label, len(chosen) / len(batch["image"]))
        if self.model_side:
            losses |= self._from_teacher(features[-1], logits[0][chosen], *view, label)
        return losses

    def _choose(self, cases: int) -> Tensor:
        """Draw the cases that get a second view: their indices in the batch."""
        return torch.randperm(cases)[: max(1, round(self.second_share * cases))]

    @torch.no_grad()
    def _complete(self, image: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Fill in the absent modalities inside the brain: (completed image, present throughout)."""
        rebuilt = self.teacher.module.autoencoder(image, present)
        return fill_in(image, rebuilt, present), torch.ones_like(present)

    def _from_completed(
        self, image: Tensor, present: Tensor, label: Tensor, share: float
    ) -> dict[str, Tensor]:
        """Learn from the labels on the completed view, a case counting as much as a student's."""
        logits = self.network.deep_logits(image, present)
        return {
            f"completed_{name}": share * criterion(logits, label)
            for name, criterion in self.criteria.items()
        }

    def _from_teacher(
        self, features: Tensor, logits: Tensor, image: Tensor, present: Tensor, label: Tensor
    ) -> dict[str, Tensor]:
        """Compare bottleneck and finest logits with the teacher's on the full view."""
        with torch.no_grad():
            teacher = self.teacher.module
            known = teacher.encode(image, present)
            answer = teacher.decode(known, present)[0]
            trust = confidence(answer, label)
        losses = {}
        if self.soft_label_weight:
            soft = soft_label_distance(logits, answer, trust, self.temperature)
            losses["soft_labels"] = self.soft_label_weight * soft
        if self.feature_weight:
            near = feature_distance(features, known[-1], trust.flatten(1).mean(1))
            losses["features"] = self.feature_weight * near
        return losses

    def attach(self, engine: Engine) -> None:
        """Start the teacher where the network starts, and move it after every step."""
        if self.teacher is None:
            return
        if not self.teacher.n_averaged:
            self.teacher.module.load_state_dict(self.network.state_dict())
        # A trainer that runs once a round starts more than once.
        if not engine.has_event_handler(self._move_teacher, Events.ITERATION_COMPLETED):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._move_teacher)

    def after_global_update(self) -> None:
        """Set the teacher to the network: between rounds the sites' average is the better one."""
        if self.teacher is not None:
            self.teacher.module.load_state_dict(self.network.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take up a former state, whose prompts must be the ones that were installed.

        Raises:
            ValueError: they are others. Their shape does not tell, and the weights would pass for
                trained with prompts that they have never seen.
        """
        name = "network.hypernetwork.prompts"
        if self.installed and name in state_dict:
            own = self.network.hypernetwork.prompts
            if not torch.allclose(state_dict[name].to(own), own, atol=1e-5):
                raise ValueError(
                    "expected the prompts of this config, got those of another prompt_source or "
                    "prompt_file. Resume with the ones that it was trained with"
                )
        return super().load_state_dict(state_dict, *args, **kwargs)

    def _move_teacher(self, engine: Engine) -> None:
        # While gradients are accumulated the network stands still, and has nothing new to average.
        here = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        if here % getattr(engine, "accumulation_steps", 1) and here != engine.state.epoch_length:
            return
        self.teacher.update_parameters(self.network)


class _MovingAverage:
    """Exponential moving average that forgets fast while there is little to remember."""

    def __init__(self, memory: float) -> None:
        self.memory = memory

    def __call__(self, average: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        memory = min(self.memory, (1 + float(steps)) / (10 + float(steps)))
        torch._foreach_lerp_(average, current, 1 - memory)
