"""What a protocol is: its lists, what they must hold, and which release they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Form = Literal["names", "masks", "folds", "sites"]


@dataclass(frozen=True)
class ListFile:
    """One list.

    Attributes:
        places: paths inside a clone, the first that exists is taken.
        form: "names" = one identifier a line; "masks" = CSV with an identifier and a mask; "folds"
            = CSV with a row for each case and mask, and the case's fold; "sites" = FeTS's CSV.
        case_column: of the identifier in a CSV of masks.
    """

    places: tuple[str, ...]
    form: Form = "names"
    case_column: str = "data_name"


@dataclass(frozen=True)
class Protocol:
    """A published division of a release, and what its cases lack.

    Attributes:
        name: as on the command line.
        release: of BraTS, a key of `RELEASES`.
        repository: owner/name on GitHub, with what else has to be said of the place.
        licence: of the lists.
        lists: section -> list; a list of folds or sites stands under "training" alone.
        counts: cases in training, validation and testing; for folds, those of all cases, 0 and 0.
        order: the names of a mask's places; () = no masks.
        present: section -> modality -> how many of its cases have it; {} = all have all.
        complete: section -> how many of its cases have all.
        folds: the sizes of the folds; () = none.
        sites: how many sites; 0 = none.
        keep_grade: True = HG_ and LG_ are part of the identifier, and are not taken away.
        note: what a user has to know.
    """

    name: str
    release: str
    repository: str
    licence: str
    lists: Mapping[str, ListFile]
    counts: tuple[int, int, int]
    order: tuple[str, ...] = ()
    present: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    complete: Mapping[str, int] = field(default_factory=dict)
    folds: tuple[int, ...] = ()
    sites: int = 0
    keep_grade: bool = False
    note: str = ""


# How a release's identifiers begin.
RELEASES: Mapping[str, str] = {
    "BraTS 2015": r"(?:[HL]G_)?brats_(?:2013|tcia)_pat\d",
    "BraTS 2017": r"Brats17_",
    "BraTS 2018": r"Brats18_",
    "BraTS 2019": r"BraTS19_",
    "BraTS 2020": r"BraTS20_",
    "BraTS 2021": r"BraTS2021_",
    "BraTS 2023": r"BraTS-[A-Z]{3}-\d",
    "FeTS 2022": r"FeTS2022_",
}
