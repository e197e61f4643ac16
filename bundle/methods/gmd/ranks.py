"""What the processes of a multi-GPU training tell each other; with one process, nothing."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def rank_count() -> int:
    """Return how many processes train together, 1 where `torch.distributed` is not initialised."""
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if ready else 1


def largest_over_ranks(values: Tensor, device: torch.device) -> Tensor:
    """Return the largest of all ranks' values, element by element; all shapes must be the same.

    Args:
        values: any shape, a type of number that the backend knows; bool too.
        device: through which to send; the backend tells which can be.
    """
    if rank_count() == 1:
        return values
    sent = values.to(device, torch.uint8 if values.dtype == torch.bool else values.dtype)
    distributed.all_reduce(sent, distributed.ReduceOp.MAX)
    return sent.to(values)


def sum_over_ranks(values: Tensor, device: torch.device) -> Tensor:
    """Return the sum of all ranks' values, element by element; arguments as above."""
    if rank_count() == 1:
        return values
    sent = values.to(device, copy=True)
    distributed.all_reduce(sent)
    return sent.to(values)


def from_first_rank(values: Tensor, device: torch.device) -> Tensor:
    """Return the values of rank 0, in the shape that they have on every rank."""
    if rank_count() == 1:
        return values
    sent = values.to(device, copy=True)
    distributed.broadcast(sent, 0)
    return sent.to(values)
