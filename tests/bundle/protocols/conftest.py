from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bundle.protocols.form import Protocol

# In the order F, T1ce, T1, T2: present in the training cases, and complete ones.
PASSION_2018 = {"1379": (61, 141, 182, 20, 3), "2468": (82, 121, 170, 41, 8)}
PASSION_2020 = {
    "1379": (68, 156, 200, 23, 4),
    "2258": (111, 180, 179, 44, 15),
    "2285": (43, 180, 179, 113, 15),
    "2468": (90, 135, 184, 43, 9),
    "5528": (185, 111, 113, 42, 8),
    "5582": (42, 111, 113, 186, 8),
    "8825": (189, 44, 46, 118, 4),
    "8852": (116, 44, 46, 190, 3),
}
# How identifiers of a release are written in the lists; `number` counts from 1.
IDENTIFIERS = {
    "BraTS 2015": "HG_brats_tcia_pat{number:03d}_0001",
    "BraTS 2018": "Brats18_TCIA01_{number:03d}_1",
    "BraTS 2020": "HG_BraTS20_Training_{number:03d}",
    "BraTS 2021": "BraTS2021_{number:05d}",
    "BraTS 2023": "BraTS-GLI-{number:05d}-000",
    "FeTS 2022": "FeTS2022_{number:05d}",
}
ENDINGS = {"BraTS 2023": ("-t1n", "-t1c", "-t2w", "-t2f", "-seg")}
OLD_ENDINGS = ("_t1", "_t1ce", "_t2", "_flair", "_seg")


def identifiers(protocol: Protocol) -> list[str]:
    """As many as the protocol has cases."""
    pattern = IDENTIFIERS[protocol.release]
    return [pattern.format(number=n) for n in range(1, sum(protocol.counts) + 1)]


def masks(count: int, present: Sequence[int], complete: int) -> list[tuple[bool, ...]]:
    """Make masks with these counts, none of them empty.

    The marks of one place follow on those of the place before, around all incomplete cases.
    """
    rest = count - complete
    made = [[True] * len(present) for _ in range(complete)]
    made += [[False] * len(present) for _ in range(rest)]
    at = 0
    for place, marks in enumerate(present):
        for _ in range(marks - complete):
            made[complete + at % rest][place] = True
            at += 1
    return [tuple(row) for row in made]


def write_names(path: Path, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\r\n".join(names).encode())


def write_masks(path: Path, column: str, rows: Sequence[tuple[str, tuple[bool, ...]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'{name},9,"{list(mask)}","[1, 3]"' for name, mask in rows]
    path.write_text("\r\n".join([f"{column},mask_id,mask,pos_mask_ids", *lines]) + "\r\n")


def write_scores(path: Path, folds: Sequence[int], names: Sequence[str]) -> None:
    """Write ReLiSS's table with two of its 15 masks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "Fold,Availability_Mask,Condition,Available_Modalities,Case,WT_Dice"
    fold_of = [fold for fold, count in enumerate(folds) for _ in range(count)]
    lines = [
        f"{fold},{mask},x,{named},{case},0.5"
        for mask, named in (("1000", "FLAIR"), ("0111", "T1ce+T1+T2"))
        for fold, case in zip(fold_of, names, strict=True)
    ]
    path.write_text("\n".join([head, *lines]) + "\n")


def write_lists(clone: Path, protocol: Protocol) -> None:
    """Write a protocol's lists with its file names, columns, counts and kind of identifiers."""
    names, at = identifiers(protocol), 0
    for section, count in zip(("training", "validation", "testing"), protocol.counts, strict=True):
        own, at = names[at : at + count], at + count
        form = protocol.lists.get(section)
        if form is None:
            continue
        path = clone / form.places[0]
        if form.form == "names":
            write_names(path, own)
        elif form.form == "masks":
            present = [protocol.present.get(section, {}).get(m, count) for m in protocol.order]
            made = masks(count, present or [count] * 4, protocol.complete.get(section, count))
            write_masks(path, form.case_column, list(zip(own, made, strict=True)))
        elif form.form == "folds":
            write_scores(path, protocol.folds, own)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{n % protocol.sites + 1},{case}" for n, case in enumerate(own)]
            path.write_text("\r\n".join(["Partition_ID,Subject_ID", *lines]) + "\r\n")


def write_scans(root: Path, release: str, names: Sequence[str]) -> None:
    """Make empty files with a release's real names; HG_ is no part of them but in 2015."""
    for name in names:
        case = name if release == "BraTS 2015" else name.removeprefix("HG_")
        (root / case).mkdir(parents=True)
        for ending in ENDINGS.get(release, OLD_ENDINGS):
            (root / case / f"{case}{ending}.nii.gz").touch()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose .git says which commit it stands at."""
    folder = tmp_path / "clone"
    (folder / ".git" / "refs" / "heads").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / ".git" / "refs" / "heads" / "main").write_text("f20ef658" * 5 + "\n")
    return folder
