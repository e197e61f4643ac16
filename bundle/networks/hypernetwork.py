"""Parameters written for each set of present modalities, from one prompt embedding a set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bundle.modalities import subset_code


class Hypernetwork(nn.Module):
    """Turn the prompt of a modality subset into changes of another network's parameters.

    The last layer starts at zero: at first nothing is changed, for any subset.

    Args:
        modalities: M; there are S = 2^M - 1 subsets.
        outputs: P, how many numbers to write for each case.
        hidden: width of the one hidden layer.

    Source: our reading of the CLIP-driven hypernetwork of arXiv 2406.01987, design.md section 1.1.
    """

    def __init__(self, modalities: int, outputs: int, hidden: int = 64) -> None:
        super().__init__()
        subsets = 2**modalities - 1
        # Row k - 1 belongs to the subset of code k. All zero until a bank is installed: weights
        # that are loaded bring theirs.
        self.register_buffer("prompts", torch.zeros(subsets, subsets - 1))
        self.hidden = nn.Linear(subsets - 1, hidden)
        self.activation = nn.SiLU()
        self.output = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def install(self, prompts: Tensor) -> None:
        """Take over a bank's coordinates (S, S - 1), in the order of `subset_code`.

        Raises:
            ValueError: a bank for another number of modalities.
        """
        if prompts.shape != self.prompts.shape:
            raise ValueError(
                f"expected prompts of shape {tuple(self.prompts.shape)}, one row for each subset, "
                f"got {tuple(prompts.shape)}. Make a bank for this config's modalities with "
                "`python -m bundle prompts`."
            )
        self.prompts.copy_(prompts)

    def forward(self, present: Tensor) -> Tensor:
        """Write (B, P) changes for `present` (B, M) bool, True = available, one at least a row."""
        prompts = self.prompts[subset_code(present) - 1]
        if torch.jit.is_scripting():
            return self._write(prompts)
        # In half precision most changes of a scale would be lost beside the 1 they are added to.
        with torch.autocast(prompts.device.type, enabled=False):
            return self._write(prompts)

    def _write(self, prompts: Tensor) -> Tensor:
        return self.output(self.activation(self.hidden(prompts)))
