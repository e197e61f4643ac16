"""Cases prepared once and kept on disk, and every case under several modality subsets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count as count_from
from math import gcd
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, PersistentDataset
from monai.data.utils import pickle_hashing
from monai.utils.enums import TraceKeys
from torch.utils.data import Dataset

from bundle.data import case_files
from bundle.data.datalist import hash_case, labelled
from bundle.data.filenames import Suffixes
from bundle.modalities import Subset, all_subsets, parse_subset
from bundle.transforms.drop import DropModalitiesd

# What MONAI notes about its transforms, and Invertd needs back, holds these. All are plain data;
# with them allowed, a cache can be read with torch.load(weights_only=True).
torch.serialization.add_safe_globals(
    [
        TraceKeys,
        np.array(0.0).__reduce__()[0],
        np.ndarray,
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Int64DType,
    ]
)


def cached_cases(
    data: Sequence[Mapping[str, Any]],
    transform: Callable | Sequence[Callable],
    cache_dir: str | None = None,
    in_memory: bool = False,
    modalities: Sequence[str] | None = None,
    suffixes: Suffixes = None,
) -> PersistentDataset | CacheDataset:
    """Keep what the deterministic transforms make of each case on disk, or in memory if asked.

    The cache's keys hold the datalist item, the size and time of its files and the transforms, so
    that a stale cache is never used.

    Args:
        data: datalist items.
        transform: transforms; from the first random one on they run at every access.
        cache_dir: where to; None = no cache.
        in_memory: True = prepare all cases now and hold them in memory instead: a third less work
            an item, nothing shared between processes, for data that is small.
        modalities: the vocabulary, for items that a host gives as one file (`spell_out`); None =
            every item names its files.
        suffixes: as in `spell_out`.
    """
    if modalities is not None:
        data = spell_out(data, modalities, suffixes)
    if in_memory:
        return CacheDataset(data, transform, progress=False)
    return PersistentDataset(
        data,
        transform,
        cache_dir=cache_dir,
        hash_func=hash_case,
        hash_transform=pickle_hashing,
        track_meta=True,
    )


def spell_out(
    data: Sequence[Mapping[str, Any]], modalities: Sequence[str], suffixes: Suffixes = None
) -> list[Mapping[str, Any]]:
    """Name every file of each case, as a datalist does.

    MONAI Label trains on items of one image file and one label file. Which modalities such a case
    has, and whether one of their files has changed, is only known once its siblings are found.

    Args:
        data: items whose `image` is whatever `bundle.transforms.load.LoadModalitiesd` takes.
        modalities: the vocabulary.
        suffixes: endings of file names besides the known ones, see
            `bundle.data.filenames.read_suffixes`.

    Returns:
        Items whose `image` maps modalities to paths; a 4D file, which has no names, stays.

    Raises:
        CaseError: as `LoadModalitiesd`, for a file that is missing or tells no modality.
    """
    return [
        item
        if isinstance(item["image"], Mapping)
        else case_files.spell_out(item, modalities, suffixes)
        for item in data
    ]


def labelled_cases(
    datalist: Mapping[str, Sequence[dict[str, Any]]], section: str
) -> Sequence[dict[str, Any]]:
    """Return a section's cases, all of them labelled.

    Raises:
        ValueError: no such section, no case in it, or cases without a label, which are named.
    """
    if section not in datalist:
        raise ValueError(f"expected a section of the datalist, {list(datalist)}, got {section!r}")
    cases = datalist[section]
    if not cases or len(labelled(cases)) < len(cases):
        without = [str(item.get("case")) for item in cases if not item.get("label")]
        raise ValueError(
            f"expected labelled cases in '{section}', got {len(cases)} cases, without label: "
            f"{without or 'none'}. Add cases or labels; to evaluate another section of the "
            "datalist, name it with --evaluate_section."
        )
    return cases


def complete_cases(
    cases: Sequence[dict[str, Any]], modalities: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the cases that have every one of these modalities.

    Raises:
        ValueError: no case has them all; the message says how many cases there are.
    """
    complete = [item for item in cases if formable(item, tuple(modalities))]
    if not complete:
        raise ValueError(
            f"expected cases with all of {'+'.join(modalities)}, got {len(complete)} of "
            f"{len(cases)}. Choose a method that can train on incomplete cases, or other data."
        )
    return complete


def formable(item: Mapping[str, Any], subset: Subset) -> bool:
    """True = the case has every modality of the subset, as far as the datalist tells."""
    image = item["image"]
    return not isinstance(image, Mapping) or all(image.get(name) for name in subset)


def patterns_of(
    data: Sequence[Mapping[str, Any]], modalities: Sequence[str], suffixes: Suffixes = None
) -> torch.Tensor:
    """Say what each case has: (N, M) bool, True = the datalist names a file of the modality.

    Args:
        data, modalities, suffixes: as in `spell_out`; a 4D file, without names, counts as whole.
    """
    rows = [
        [formable(item, (name,)) for name in modalities]
        for item in spell_out(data, modalities, suffixes)
    ]
    return torch.tensor(rows, dtype=torch.bool).reshape(-1, len(modalities))


def plan_subsets(
    data: Sequence[Mapping[str, Any]], modalities: Sequence[str], subsets: str | Sequence[str]
) -> list[tuple[int, Subset]]:
    """Pair every case with the subsets it is to be tested on; see `CaseSubsets` for the arguments.

    Raises:
        ValueError: `subsets` is neither of the words nor a list, or no pair is left.
    """
    if isinstance(subsets, str) and subsets not in ("all", "rotate"):
        raise ValueError(
            f"expected subsets 'all', 'rotate' or a list such as ['t1+t2'], got {subsets!r}"
        )
    if isinstance(subsets, str):
        wanted = all_subsets(modalities)
    else:
        wanted = [parse_subset(text, modalities) for text in subsets]
    pairs = []
    for index, item in enumerate(data):
        here = [subset for subset in wanted if formable(item, subset)]
        if subsets == "rotate":
            here = [here[index * _stride(len(here)) % len(here)]]
        pairs += [(index, subset) for subset in here]
    if data and not pairs:
        raise ValueError(f"no case has all modalities of any of {subsets}: nothing to evaluate")
    return pairs


def _stride(count: int) -> int:
    """Step that visits every one of `count` subsets and keeps neighbours far apart."""
    return next(step for step in count_from(round(0.6 * count)) if gcd(step, count) == 1)


class CaseSubsets(Dataset):
    """Pairs of (case, subset), case by case, so that a case is loaded once for all its subsets.

    Args:
        data: datalist items.
        transform: deterministic transforms that yield `image` (M, D, H, W) and `present` (M,).
        modalities: the vocabulary.
        subsets: "all" = every subset that a case can form; "rotate" = one subset a case, striding
            through them from case to case (cheap validation; few cases still see small and large
            gaps, as many cases as there are subsets see every one); or
            a list such as ["t1+t2", "flair"].
        cache_dir: as in `cached_cases`.
        suffixes: as in `spell_out`.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable | Sequence[Callable],
        modalities: Sequence[str],
        subsets: str | Sequence[str] = "all",
        cache_dir: str | None = None,
        suffixes: Suffixes = None,
    ) -> None:
        self.data = data = spell_out(data, modalities, suffixes)
        self.cases = cached_cases(data, transform, cache_dir)
        self.modalities = tuple(modalities)
        self.pairs = plan_subsets(data, modalities, subsets)
        self._last: tuple[int, dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the case with only the pair's modalities left."""
        case, subset = self.pairs[index]
        if self._last is None or self._last[0] != case:
            self._last = (case, self.cases[case])
        return DropModalitiesd("image", self.modalities, subset)(self._last[1])
