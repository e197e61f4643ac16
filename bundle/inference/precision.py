"""Whether half precision saves time on a device."""

from __future__ import annotations

import torch


def half_is_fast(device: torch.device | str) -> bool:
    """Say whether a device multiplies matrices of half precision faster than of single precision.

    Args:
        device: where the network runs. float16 on a GPU, bfloat16 on a CPU.

    Returns:
        True = on a GPU, and on a CPU with AMX. Other CPUs compute in bfloat16 too, but gain nothing
        (those with AVX512-BF16 alone) or lose a lot of time.
    """
    kind = torch.device(device).type
    # Absent before PyTorch 2.10 or so: single precision is never wrong.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)() if kind == "cpu" else {}
    return kind == "cuda" or bool(capabilities.get("amx_bf16"))
