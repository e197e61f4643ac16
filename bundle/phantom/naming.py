"""Which cases a phantom data set has, and how a BraTS release names their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bundle.phantom.anatomy import RIM_LABEL
from bundle.phantom.case import has_rim

# Fixed, so that a case does not depend on the other sections' counts; BraTS 2020 has three digits.
SECTION_NUMBERS: Mapping[str, range] = {
    "training": range(600),
    "validation": range(600, 800),
    "testing": range(800, 999),
}


@dataclass(frozen=True)
class Naming:
    """How a release names its folders and files.

    Attributes:
        case: template of a case's identifier; `number` is its number in the data set.
        first: number of the first case.
        joint: stands between the identifier and the modality.
        ending: file type.
        by_grade: True = cases lie in HGG (with an enhancing rim) and LGG (without).
        rim_label: value of the enhancing rim.
        modality_names: modality to the word in its file name; empty = the modality's own name.
    """

    case: str
    first: int = 0
    joint: str = "_"
    ending: str = ".nii.gz"
    by_grade: bool = False
    rim_label: int = RIM_LABEL
    modality_names: Mapping[str, str] = field(default_factory=dict)


NAMES_2023 = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}
NAMINGS: Mapping[str, Naming] = {
    "phantom": Naming("Phantom_{number:04d}"),
    "brats2018": Naming("Brats18_Phantom{number:04d}_1", by_grade=True),
    "brats2019": Naming("BraTS19_Phantom{number:04d}_1", by_grade=True),
    "brats2020": Naming("BraTS20_Training_{number:03d}", first=1, ending=".nii"),
    "brats2021": Naming("BraTS2021_{number:05d}"),
    "brats2023": Naming(
        "BraTS-GLI-{number:05d}-000", joint="-", rim_label=3, modality_names=NAMES_2023
    ),
}


@dataclass(frozen=True)
class Case:
    """A case's seed and its files, as paths relative to the datalist."""

    seed: int
    name: str
    image: dict[str, str]
    label: str

    @property
    def files(self) -> list[str]:
        """The images, then the label."""
        return [*self.image.values(), self.label]


def check_sections(sections: Mapping[str, int]) -> None:
    """Refuse a section that is unknown, or that would run into the case numbers of the next one."""
    for section, count in sections.items():
        if section not in SECTION_NUMBERS:
            raise ValueError(f"expected sections out of {list(SECTION_NUMBERS)}, got {section!r}")
        room = len(SECTION_NUMBERS[section])
        if not 0 <= count <= room:
            raise ValueError(f"section {section!r}: expected 0 to {room} cases, got {count}")


def check_naming(naming: str, modalities: Sequence[str]) -> None:
    """Refuse a naming that is unknown, or one that has no file name for a modality."""
    if naming not in NAMINGS:
        raise ValueError(f"expected a naming out of {list(NAMINGS)}, got {naming!r}")
    known = NAMINGS[naming].modality_names
    unnamed = [name for name in modalities if known and name not in known]
    if unnamed:
        raise ValueError(
            f"the naming {naming!r} has no file names for {unnamed}, only for {list(known)}. "
            f"Choose the naming 'phantom', or leave them out."
        )


def list_cases(parameters: Mapping[str, Any]) -> dict[str, list[Case]]:
    """List the cases of each section, without making any."""
    return {
        section: [find_case(parameters, number) for number in SECTION_NUMBERS[section][:count]]
        for section, count in parameters["sections"].items()
    }


def find_case(parameters: Mapping[str, Any], number: int) -> Case:
    """Find the seed and the file names of the case of this number."""
    naming = NAMINGS[parameters["naming"]]
    seed = int(np.random.SeedSequence([parameters["seed"], number]).generate_state(1)[0])
    name = naming.case.format(number=number + naming.first)
    grade = ("HGG/" if has_rim(seed, parameters["anatomy"]) else "LGG/") if naming.by_grade else ""
    stem = f"{grade}{name}/{name}{naming.joint}"
    words = {m: naming.modality_names.get(m, m) for m in parameters["modalities"]}
    image = {modality: f"{stem}{word}{naming.ending}" for modality, word in words.items()}
    return Case(seed, name, image, f"{stem}seg{naming.ending}")
