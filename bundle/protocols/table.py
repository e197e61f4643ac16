"""The table of published protocols: where each list lies, how it is read, and what it must hold.

No list is copied into this bundle: each is read from the clone that the user names. File names,
columns and the order of masks were read off the repositories' files and their preprocessing; the
counts were counted in the lists. A mask is an unnamed row of true and false, so each protocol says
by name what stands where.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bundle.cli.words import suggestion
from bundle.protocols.form import ListFile, Protocol

# Orders of masks that are in use: of RFNet's preprocessed volumes, whose axes PASSION, HGA and
# IM-Fuse mask.
RFNET_ORDER = ("flair", "t1ce", "t1", "t2")


# Present F, T1ce, T1, T2; complete.
_SETS_2018 = {"1379": (61, 141, 182, 20, 3), "2468": (82, 121, 170, 41, 8)}
_PASSION_SETS = {
    "1379": (68, 156, 200, 23, 4),
    "2258": (111, 180, 179, 44, 15),
    "2285": (43, 180, 179, 113, 15),
    "2468": (90, 135, 184, 43, 9),
    "5528": (185, 111, 113, 42, 8),
    "5582": (42, 111, 113, 186, 8),
    "8825": (189, 44, 46, 118, 4),
    "8852": (116, 44, 46, 190, 3),
}
_HGA_SETS = {
    "0000": (219, 219, 219, 219, 219),
    "0050": (110, 219, 219, 219, 110),
    "009p50": (10, 219, 219, 219, 10),
    "009p90": (2, 219, 219, 219, 2),
    "2222": (178, 179, 178, 179, 95),
    "4444": (136, 133, 135, 135, 31),
    "6666": (101, 99, 100, 100, 7),
    "8888": (76, 78, 72, 73, 1),
    "9999": (64, 62, 67, 68, 1),
}
_DEMOSEG = "DeMoSeg/DataAndOutput/Dataset/Convert_Split_Code"
# What RFNet's archive of preprocessed volumes unpacks to, here and in the clones that use it.
_ARCHIVE_2018 = "BRATS2018_Training_none_npy"
_SHORT = {"training": "train", "validation": "val", "testing": "test"}


def _names(*folders: str, split: str = "") -> dict[str, ListFile]:
    return {
        section: ListFile(tuple(f"{folder}/{word}{split}.txt" for folder in folders))
        for section, word in _SHORT.items()
    }


def _imbalanced(group: str, repository: str, data: str, sets: Mapping[str, tuple[int, ...]]):
    """Yield the protocols of PASSION or HGA for one release; `data` is their folder of lists."""
    year = group[-4:]
    is_2018 = year == "2018"
    splits = (
        _names(f"{data}/{_ARCHIVE_2018}", f"{_DEMOSEG}/BraTS2018", split="1")
        if is_2018
        else _names(f"{data}/BRATS2020_Training_none_npy")
    )
    for name, (*present, complete) in sets.items():
        masks = ListFile((f"{data}/brats_split/Brats{year}_imb_split_mr{name}.csv",), "masks")
        yield Protocol(
            f"{group}-{name}",
            f"BraTS {year}",
            f"{repository}, and kk42yy/DeMoSeg" if is_2018 else repository,
            "Apache-2.0",
            splits | {"training": masks},
            (199, 29, 57) if is_2018 else (219, 50, 100),
            RFNET_ORDER,
            {"training": dict(zip(RFNET_ORDER, present, strict=True))},
            {"training": complete},
            note="validation and testing: split 1 of DeMoSeg's clone, whose training cases are "
            "the same; give both: --lists CLONE,DEMOSEG"
            if is_2018
            else "",
        )


def _three_splits(group: str, repository: str, licence: str, *folders: str, note: str = ""):
    for split in "123":
        lists = _names(*folders, split=split)
        counts = (199, 29, 57)
        yield Protocol(
            f"{group}-{split}", "BraTS 2018", repository, licence, lists, counts, note=note
        )


def _imfuse(name: str, masked: bool, note: str) -> Protocol:
    lists = {"training": ListFile(("IMFuse/datalist/train.txt",))}
    for section in ("validation", "testing"):
        place = f"IMFuse/datalist/{_SHORT[section]}15splits.csv"
        lists[section] = ListFile((place,), "masks", "case")
    present = {"validation": (65, 65, 66, 66), "testing": (133, 133, 133, 132)}
    return Protocol(
        name,
        "BraTS 2023",
        "AImageLab-zip/IM-Fuse",
        "none given",
        lists,
        (875, 125, 251),
        RFNET_ORDER if masked else (),
        {s: dict(zip(RFNET_ORDER, n, strict=True)) for s, n in present.items()} if masked else {},
        {"validation": 8, "testing": 16} if masked else {},
        note=note,
    )


def _all() -> Iterable[Protocol]:
    for name, repository, data, sets in (
        ("hga", "Jun-Jie-Shi/HGA", "HGA/datasets/BraTS", _PASSION_SETS | _HGA_SETS),
        ("passion", "Jun-Jie-Shi/PASSION", "datasets/BraTS", _PASSION_SETS),
    ):
        yield from _imbalanced(f"{name}2018", repository, data, _SETS_2018)
        yield from _imbalanced(f"{name}2020", repository, data, dict(sorted(sets.items())))
    demoseg, apache = "kk42yy/DeMoSeg", "Apache-2.0"
    yield from _three_splits("demoseg2018", demoseg, apache, f"{_DEMOSEG}/BraTS2018")
    lists_2020 = _names(f"{_DEMOSEG}/BraTS2020")
    yield Protocol("demoseg2020", "BraTS 2020", demoseg, apache, lists_2020, (219, 50, 100))
    yield Protocol(
        "demoseg2015",
        "BraTS 2015",
        demoseg,
        apache,
        _names(f"{_DEMOSEG}/BraTS2015"),
        (242, 12, 20),
        keep_grade=True,
        note="cases named HG_ and LG_ as DeMoSeg's conversion to NIfTI names them; patient "
        "HG_brats_tcia_pat309 has scans in training and in testing, as published",
    )
    for name, repository in (
        ("rfnet2018", "dyh127/RFNet"),
        ("mmformer2018", "YaoZhang93/mmFormer"),
    ):
        yield from _three_splits(
            name,
            f"{repository}, its archive of data, or kk42yy/DeMoSeg",
            "none given; DeMoSeg's copy Apache-2.0",
            _ARCHIVE_2018,
            f"{_DEMOSEG}/BraTS2018",
            note=f"the lists are in the archive {_ARCHIVE_2018}, not in the repository; DeMoSeg "
            "gives its own as those of previous works",
        )
    yield _imfuse("imfuse2023", True, "a fixed mask for each validation and testing case")
    yield _imfuse("imfuse2023-whole", False, "the same split, testing cases whole: 15 subsets each")
    yield Protocol(
        "reliss2021",
        "BraTS 2021",
        "hekaiwang/ReLiSS",
        "MIT",
        {"training": ListFile(("logs/BraTS2021/per_case_metrics.csv",), "folds")},
        (1251, 0, 0),
        RFNET_ORDER,
        folds=(251, 250, 250, 250, 250),
        note="testing = fold --fold, training = the others; no validation cases of its own",
    )
    workspace = "Task_1/openfl-workspace/fets_challenge_workspace"
    for number, sites in ((1, 23), (2, 33)):
        yield Protocol(
            f"fets2022-{number}",
            "FeTS 2022",
            "FeTS-AI/Challenge",
            "BSD-style",
            {"training": ListFile((f"{workspace}/partitioning_{number}.csv",), "sites")},
            (1251, 0, 0),
            sites=sites,
            note="the key `site` of each case; no validation and testing cases with labels",
        )


PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _all()}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of a name.

    Raises:
        ValueError: no such name; the message gives the nearest, or the sets of a group.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    group = [each for each in PROTOCOLS if name and each.startswith(f"{name}-")]
    said = (
        f" It has {len(group)} lists: {', '.join(group)}. Name one of them."
        if group
        else suggestion(name, list(PROTOCOLS))
    )
    raise ValueError(
        f"no protocol {name!r}.{said} `python -m bundle protocol` prints the table of names."
    )


def size_text(protocol: Protocol) -> str:
    """Write how many cases the sections have: 219/50/100, or those of the folds."""
    return "/".join(map(str, protocol.folds or protocol.counts))


def _present_text(protocol: Protocol) -> str:
    """Write how many cases keep each modality, in the masks' order, and all: 90,135,184,43; 9."""
    texts = [
        f"{','.join(str(present[name]) for name in protocol.order)}; {protocol.complete[section]}"
        for section, present in protocol.present.items()
    ]
    return " and ".join(texts) or "all"


def rows() -> list[tuple[str, ...]]:
    """Lay out the table: a head, then one row for each protocol."""
    head = (
        *("name", "release", "cases", "order of masks", "cases that keep each; all"),
        *("licence", "repository"),
    )
    return [head] + [
        (
            p.name,
            p.release,
            size_text(p) + (f", {p.sites} sites" if p.sites else ""),
            ",".join(p.order) or "none",
            _present_text(p),
            p.licence,
            p.repository,
        )
        for p in PROTOCOLS.values()
    ]
