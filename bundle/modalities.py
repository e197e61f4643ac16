"""Modalities, their subsets, and what "present" means.

Shape legend, used in every docstring of the bundle:

    B  batch            M  modalities       R  regions
    D H W  space, the array's axes as stored (the orientation transform says what they mean)
    S  subsets          E  embedding

`image` is (B, M, D, H, W) float; `present` is (B, M) bool, True = the modality is available.
Names and their order come from the config; the BraTS names below are only the configs' default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

BRATS_MODALITIES = ("t1", "t1ce", "t2", "flair")

# What follows T1 in the name of a scan after the contrast agent. Two parts may be joined by nothing
# or by any separator, here and below: `t1_gd` stands for `t1gd`, `T1-Gd` and `t1 gd` too.
_AGENT = (
    *("ce", "c", "gd", "gad", "gado", "gadolinium", "km", "post", "contrast", "post_contrast"),
    *("post_gd", "post_gad", "post_gadolinium", "contrast_enhanced", "enhanced"),
)
# What may stand before T1: not "post", which may be said of a surgery.
_AGENT_BEFORE = (
    *("ce", "gd", "gad", "gado", "gadolinium", "km", "contrast", "enhanced", "post_contrast"),
    *("post_gd", "post_gad", "post_gado", "post_gadolinium", "post_km", "contrast_enhanced"),
)
# How files end: BraTS to 2021 `_t1ce.nii.gz`, from 2023 `-t1c.nii.gz`, BIDS `_T1w.nii.gz`, and what
# scanners and preprocessing tools write.
FILE_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "t1": ("t1", "t1n", "t1w", "t1_weighted", "t1_pre", "t1w_pre", "t1_pre_contrast", "t1_native"),
    "t1ce": (
        *("t1ce", "t1c", "t1gd"),
        *(f"{t1}_{agent}" for t1 in ("t1", "t1w") for agent in _AGENT),
        *(f"{agent}_{t1}" for t1 in ("t1", "t1w") for agent in _AGENT_BEFORE),
    ),
    "t2": ("t2", "t2w", "t2_weighted"),
    "flair": ("flair", "t2f", "fla", "t2_flair", "t2w_flair", "t2_fla"),
}
LABEL_SUFFIXES = (
    *("seg", "segm", "label", "dseg", "labels", "segmentation", "gt", "ground_truth"),
    *("tumor_seg", "tumour_seg", "tumor_segmentation", "tumour_segmentation"),
)
# How the files end that this bundle writes: predictions, which are neither scans nor labels.
PREDICTION_SUFFIXES = ("pred", "prediction", "probabilities", "rebuilt", "uncertainty")

# Logit outside the brain: probability 2e-9, and still finite in half precision.
OUTSIDE_LOGIT = -20.0

# The order in which RFNet, mmFormer and their successors print the 15 subsets, and their row order.
_PAPER_ROWS = ("flair", "t1", "t1ce", "t2")
_PAPER_SUBSETS = (
    "t2",
    "t1ce",
    "t1",
    "flair",
    "t1ce+t2",
    "t1+t1ce",
    "t1+flair",
    "t1+t2",
    "t2+flair",
    "t1ce+flair",
    "t1+t1ce+flair",
    "t1+t2+flair",
    "t1ce+t2+flair",
    "t1+t1ce+t2",
    "t1+t1ce+t2+flair",
)

Subset = tuple[str, ...]


def check_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the vocabulary as a tuple, or say what is wrong with it.

    Raises:
        ValueError: fewer than 2 or more than 8 names, a name twice, or a name that holds '+', which
            joins the names of a subset.
    """
    names = tuple(modalities)
    if not 2 <= len(names) <= 8:
        raise ValueError(f"expected 2 to 8 modalities, got {len(names)}: {list(names)}")
    if len(set(names)) != len(names):
        raise ValueError(f"each modality must be named once, got {list(names)}")
    bad = [name for name in names if not name or "+" in name]
    if bad:
        raise ValueError(f"modality names must be non-empty and free of '+', got {bad}")
    return names


def check_known(names: Iterable[str], modalities: Sequence[str], where: str) -> None:
    """Refuse modality names outside the vocabulary.

    Args:
        names: the names to look up.
        modalities: the vocabulary.
        where: what the message starts with, e.g. "case BraTS_001 in train.json".

    Raises:
        ValueError: naming the unknown modalities, the vocabulary and the way out.
    """
    unknown = sorted(set(names) - set(modalities))
    if unknown:
        raise ValueError(
            f"{where}: unknown modality {', '.join(map(repr, unknown))}. "
            f"Expected names from {list(modalities)}. "
            "Correct the name, or add it to 'modalities' in the config."
        )


def subset_name(subset: Iterable[str], modalities: Sequence[str]) -> str:
    """Write a subset as one word, in vocabulary order: ('t2', 't1') becomes 't1+t2'."""
    members = set(subset)
    return "+".join(name for name in modalities if name in members)


def parse_subset(text: str, modalities: Sequence[str]) -> Subset:
    """Read 't2+t1' as ('t1', 't2'), in vocabulary order.

    Raises:
        ValueError: an empty subset, or a name outside the vocabulary.
    """
    names = [name.strip() for name in text.split("+") if name.strip()]
    if not names:
        raise ValueError(
            f"expected modalities joined by '+', such as '{'+'.join(modalities[:2])}', got {text!r}"
        )
    check_known(names, modalities, f"subset {text!r}")
    return tuple(name for name in modalities if name in names)


def all_subsets(modalities: Sequence[str]) -> list[Subset]:
    """List the 2^M - 1 non-empty subsets, each in vocabulary order.

    For the four BraTS modalities the order is that of the papers' tables (single T2 first, all four
    last); for any other vocabulary it goes by size, then by vocabulary order.
    """
    if set(modalities) == set(BRATS_MODALITIES):
        return [parse_subset(text, modalities) for text in _PAPER_SUBSETS]
    return [
        subset
        for size in range(1, len(modalities) + 1)
        for subset in combinations(modalities, size)
    ]


def table_rows(modalities: Sequence[str]) -> list[str]:
    """Order the modalities as the papers' tables do (FLAIR, T1, T1ce, T2), others as given."""
    return list(_PAPER_ROWS if set(modalities) == set(_PAPER_ROWS) else modalities)


def presence(subset: Iterable[str], modalities: Sequence[str]) -> Tensor:
    """Turn names into `present`: (M,) bool, True = the modality is in the subset."""
    members = set(subset)
    check_known(members, modalities, f"subset {sorted(members)}")
    return torch.tensor([name in members for name in modalities], dtype=torch.bool)


def names_of(present: Tensor, modalities: Sequence[str]) -> Subset:
    """Turn `present` (M,) bool back into names, in vocabulary order."""
    if present.shape != (len(modalities),):
        raise ValueError(
            f"expected present of shape ({len(modalities)},) for {list(modalities)}, "
            f"got {tuple(present.shape)}"
        )
    return tuple(name for name, here in zip(modalities, present.tolist(), strict=True) if here)


def derive_presence(image: Tensor) -> Tensor:
    """Read presence off a whole case: a channel that is zero everywhere is absent.

    Only meaningful on whole volumes: a window of a scanned modality may well be all zero.

    Args:
        image: (B, M, D, H, W) or (M, D, H, W), background exactly 0.

    Returns:
        (B, M) or (M,) bool, True = the channel holds something.
    """
    return (image != 0).flatten(-3).any(-1)


def plain(tensor: Tensor) -> Tensor:
    """Return the same values as a plain tensor, without MONAI's metadata; gradients still flow.

    A MetaTensor would carry its bookkeeping into every operation.
    """
    return tensor.as_subclass(Tensor)


def subset_code(present: Tensor) -> Tensor:
    """Number the subsets: modality i contributes 2**i, so that codes run from 1 to 2**M - 1.

    Args:
        present: (B, M) bool, True = available.

    Returns:
        (B,) int64.
    """
    bits = 2 ** torch.arange(present.shape[1], device=present.device)
    return (present * bits).sum(1)


def draw_subset(present: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a non-empty subset of what is present, each such subset equally likely.

    Args:
        present: (B, M) bool, at least one True per row.
        generator: source of randomness on the CPU; None = PyTorch's global one.

    Returns:
        (B, M) bool on the device of `present`, True = keep. True only where `present` is.

    Raises:
        ValueError: a row with nothing present.
    """
    if not bool(present.any(1).all()):
        raise ValueError("cannot draw a subset: a case has no modality present")
    rows = []
    for row in present.cpu():
        here = row.nonzero().flatten()
        bits = int(torch.randint(1, 2 ** len(here), (1,), generator=generator))
        keep = torch.zeros_like(row)
        keep[here] = torch.tensor([bool(bits >> i & 1) for i in range(len(here))])
        rows.append(keep)
    return torch.stack(rows).to(present.device)


def keep_only(image: Tensor, keep: Tensor) -> Tensor:
    """Zero every modality that is not kept, whatever it held (NaN included).

    Args:
        image: (B, M, D, H, W) with keep (B, M), or (M, D, H, W) with keep (M,).
        keep: bool, True = keep.

    Returns:
        As `image`; kept channels are bit for bit the same.
    """
    return image.masked_fill(~keep[..., None, None, None].to(image.device), 0)


def brain_mask(image: Tensor, present: Tensor) -> Tensor:
    """Mark the brain: where any present modality is not exactly 0.

    Args:
        image: (B, M, D, H, W), exactly 0 outside the brain; an absent modality may hold anything.
        present: (B, M) bool, True = available.

    Returns:
        (B, 1, D, H, W) bool, True = inside the brain.
    """
    return ((image != 0) & present[:, :, None, None, None]).any(1, keepdim=True)


def empty_outside(logits: Tensor, image: Tensor, present: Tensor) -> Tensor:
    """Say "background" wherever every present modality is exactly 0: nothing was scanned there.

    Args:
        logits: (B, R, D, H, W) region logits.
        image: (B, M, D, H, W), exactly 0 outside the brain; an absent modality may hold anything.
        present: (B, M) bool, True = available.

    Returns:
        (B, R, D, H, W), -20 outside the brain, the same inside.
    """
    return logits.masked_fill(~brain_mask(image, present), OUTSIDE_LOGIT)


def fill_in(image: Tensor, rebuilt: Tensor, present: Tensor) -> Tensor:
    """Complete cases: what was scanned stays bit for bit, the rest is rebuilt inside the brain.

    Args:
        image: (B, M, D, H, W), exactly 0 outside the brain; an absent modality may hold anything.
        rebuilt: (B, M, D, H, W), same unit; outside the brain it may hold anything.
        present: (B, M) bool, True = available.

    Returns:
        (B, M, D, H, W) in the type of `image`; rebuilt modalities are exactly 0 outside the brain.
    """
    inside = rebuilt.to(image.dtype).masked_fill(~brain_mask(image, present), 0)
    return torch.where(present[:, :, None, None, None], image, inside)
