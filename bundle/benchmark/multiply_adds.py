"""The work of a training step, counted: multiply-adds, whatever the machine.

Seconds say as much about a machine as about a method: on a GPU the small networks of the benchmark
wait for their host. Multiply-adds of convolutions and matrix products are the same everywhere. All
that a step does counts: forward, backward, and passes of a teacher without gradients.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bundle.benchmark.configs import read_configs
from bundle.methods.base import Method
from bundle.methods.lckd.method import LCKD
from bundle.training.census import TrainingCensus

# Of a training that is only counted: so many that shares of it are whole numbers.
_EPOCHS = 100
# Batches to count; what they show differs, and with it the work of some methods.
_BATCHES = 24
# What the plain U-Net of the same size is made with, whatever the method.
_PLAIN = "method_modality_dropout.yaml"
# Overlays that make something else than the plain U-Net.
_OTHERS = ("method_", "pretrain")
# Ids that say how large a step is, and of what; others are of one method alone.
_SIZE = (
    *("filters", "blocks_down", "deep_supervision", "roi_size", "batch_size", "epoch_samples"),
    *("spacing", "seed", "datalist_file", "dataset_dir", "output_dir", "ckpt_dir"),
    *("device", "max_epochs"),
)


@dataclass(frozen=True)
class Work:
    """The work of a training step.

    Attributes:
        step: multiply-adds, the mean over batches.
        plain: multiply-adds of a step of a plain U-Net on a batch of the same size.
    """

    step: float
    plain: float

    @property
    def plain_steps(self) -> float:
        """How many steps of the plain U-Net one step is."""
        return self.step / self.plain


def count(work: Callable[[], Any]) -> int:
    """Count the multiply-adds of what a function does."""
    with FlopCounterMode(display=False) as counter:
        work()
    # Of each multiplication and its addition the counter makes two.
    return counter.get_total_flops() // 2


def multiply_adds(configs: Sequence[str], settings: Mapping[str, Any]) -> Work:
    """Count the work of a training step of configs, on batches of their own training cases.

    Args:
        configs: names of files in configs/, as `read_configs` takes them.
        settings: ids and values that come last; they name the datalist.
    """
    return _counted(tuple(configs), json.dumps(dict(settings), sort_keys=True, default=str))


@functools.cache
def _counted(configs: tuple[str, ...], settings: str) -> Work:
    given = {**json.loads(settings), "device": "$torch.device('cpu')", "max_epochs": _EPOCHS}
    step = _mean_step(configs, given)
    plain = [name for name in configs if not name.startswith(_OTHERS)]
    plain.insert(1, _PLAIN)
    size = {id_: value for id_, value in given.items() if id_ in _SIZE}
    is_plain = list(configs) == plain and size == given
    return Work(step, step if is_plain else _mean_step(plain, size, batches=1))


def _mean_step(
    configs: Sequence[str], settings: Mapping[str, Any], batches: int | None = None
) -> float:
    """Count a step on some batches: their mean, over the phases of a training."""
    quiet = {"pretrained_file": None, "resume": False}
    parser = read_configs(configs, {**settings, **quiet}).parser
    method = parser.get_parsed_content("method").train()
    loader = parser.get_parsed_content("train#dataloader")
    amp = bool(parser.get_parsed_content("amp"))
    modalities = parser.get_parsed_content("modalities")
    TrainingCensus(method, modalities).take(loader.dataset)
    return sum(
        share * _mean_of(method, itertools.islice(_endless(loader), batches or _BATCHES), amp)
        for share in phases(method)
    )


def phases(method: Method) -> Iterator[float]:
    """Put a method into each phase of its training, and say for what share of the steps it lasts.

    LCKD shows everything at first; from its first election on it encodes teachers as well. Which
    modality wins is not known before. T1ce for the core and FLAIR for the whole tumour is what
    elections come to.
    """
    if not isinstance(method, LCKD):
        yield 1.0
        return
    warm = min(1.0, method.warm_up_epochs / _EPOCHS)
    if warm:
        method.warming_up = True
        yield warm
    method.warming_up = False
    names = ["flair" if region == "WT" else "t1ce" for region in method.regions]
    winners = [method.modalities.index(name) for name in names]
    won = torch.zeros_like(method.dice_sums)
    won[winners, range(len(winners))] = 1
    method.elect(won, torch.ones_like(won))
    yield 1 - warm


def _endless(loader: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    while True:
        yield from loader


def _mean_of(method: Method, batches: Iterable[Mapping[str, Any]], amp: bool) -> float:
    counts = []
    for batch in batches:

        def step(batch: Mapping[str, Any] = batch) -> None:
            with torch.autocast("cpu", enabled=amp, dtype=torch.bfloat16):
                losses = method.losses(batch)
            method.backward(losses)

        counts.append(count(step))
        method.zero_grad(set_to_none=True)
    return sum(counts) / len(counts)


def epoch_steps_of(configs: Sequence[str], settings: Mapping[str, Any]) -> int:
    """Say how many steps an epoch of configs has."""
    parser = read_configs(configs, {**settings, "max_epochs": 1}).parser
    return len(parser.get_parsed_content("train#dataloader"))
