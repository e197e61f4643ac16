"""What the names of a datastore's images mean, and what is said of the files that are none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from monailabel.interfaces.datastore import Datastore

EXAMPLES = 3


def case_of(image: str, endings: Mapping[str, str]) -> str:
    """Return the case that an image belongs to."""
    from bundle.data.filenames import split_name

    return split_name(f"{image}.nii.gz", endings)[0]


def tells(image: str, endings: Mapping[str, str]) -> bool:
    """True = an image's name tells what it is."""
    from bundle.data.filenames import split_name

    return split_name(f"{image}.nii.gz", endings)[1] is not None


def by_case(images: Iterable[str], endings: Mapping[str, str]) -> dict[str, list[str]]:
    """Group the datastore's images, which it takes for unrelated, by the case they belong to."""
    cases: dict[str, list[str]] = {}
    for image in sorted(images):
        cases.setdefault(case_of(image, endings), []).append(image)
    return cases


def open_images(datastore: Datastore, endings: Mapping[str, str]) -> list[str]:
    """List the images of cases of which no image is labelled."""
    done = {case_of(image, endings) for image in datastore.get_labeled_images()}
    return [i for i in datastore.get_unlabeled_images() if case_of(i, endings) not in done]


def left_out_line(folder: Path, left_out: Mapping[str, str], modalities: Sequence[str]) -> str:
    """Say which files of a folder are no images.

    Args:
        folder: of the scans.
        left_out: file -> why it is none; at least one.
        modalities: the vocabulary.
    """
    names = sorted(left_out, key=lambda file: (left_out[file] == "hidden", file))
    listed = ", ".join(f"{file} ({left_out[file]})" for file in names[:EXAMPLES])
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    endings = ", ".join(f"_{name}" for name in modalities)
    return (
        f"{folder}: {len(names)} files are no images and are not shown: {listed}{more}. "
        f"The names of images end in {endings}, in any known spelling."
    )


def alike(cases: Iterable[str]) -> set[str]:
    """Return the cases whose names differ from another's in upper and lower case alone."""
    spellings: dict[str, set[str]] = {}
    for case in cases:
        spellings.setdefault(case.casefold(), set()).add(case)
    return {case for found in spellings.values() if len(found) > 1 for case in found}


def subfolder_line(folder: Path, labels: str) -> str | None:
    """Say that there are volumes in folders of their own, which MONAI Label does not show.

    Args:
        folder: of the scans.
        labels: the folder in it that is MONAI Label's own.

    Returns:
        None if there are none.
    """
    from bundle.data.filenames import is_volume

    inside: list[str] = []
    for sub in sorted(path for path in folder.iterdir() if path.is_dir()):
        if sub.name == labels or sub.name.startswith("."):
            continue
        try:
            inside += [f"{sub.name}/{file}" for file in os.listdir(sub) if is_volume(file)]
        except OSError:
            continue  # a folder that this user may not read is none of the server's
    if not inside:
        return None
    return (
        f"{folder}: {len(inside)} volumes lie in folders of their own, such as {inside[0]}, "
        "and are not shown: MONAI Label shows the files in the folder itself. Move them there, "
        "or ask for such a folder by its path."
    )
