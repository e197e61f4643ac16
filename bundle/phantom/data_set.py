"""The phantom data set: made-up heads, written as the BraTS releases are (design.md section 3).

Every case is made from its own seed, so it is the same whatever else the folder holds.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform
from tqdm import tqdm

from bundle.atomic import write_text_atomically, written_atomically
from bundle.modalities import BRATS_MODALITIES
from bundle.phantom.anatomy import RIM_LABEL
from bundle.phantom.case import make_case
from bundle.phantom.naming import NAMINGS, Case, list_cases
from bundle.phantom.parameters import parameters_of, slab_of
from bundle.phantom.workers import check_workers, run_all

DEFAULT_SECTIONS: Mapping[str, int] = {"training": 24, "validation": 4, "testing": 8}
DATALIST = "datalist.json"
NOTICE_FILE = "NOTICE.txt"
# Of the first voxel of every BraTS release, mm.
BRATS_ORIGIN_MM = (0.0, 239.0, 0.0)
UNFINISHED = "unfinished.json"


def write_phantom(
    output_dir: str | Path,
    sections: Mapping[str, int] = DEFAULT_SECTIONS,
    anatomy: str = "icbm152",
    spacing_mm: Sequence[float] | None = None,
    modalities: Sequence[str] = BRATS_MODALITIES,
    seed: int = 0,
    orientation: str = "LPS",
    naming: str = "phantom",
    grid: str | None = None,
    head: bool | None = None,
    thick_slices: bool | None = None,
    scanner_seed: int | None = None,
    size: int | None = None,
    difficulty: float | None = None,
    workers: int = 1,
) -> Path:
    """Write a data set, replacing what an earlier run left under the same names.

    Args:
        output_dir: the folder to write into; it is made if need be.
        sections: number of cases in 'training' (at most 600), 'validation' (200), 'testing' (199).
        anatomy: 'icbm152' = a head from the ICBM 2009a template, some seconds a case; 'simple' = an
            ellipsoid that is hard for its noise, a tenth of a second a case. The options below are
            for one of them; None = its default.
        spacing_mm: voxel size along left-right, front-back and down-up, whatever the orientation;
            3 mm, or 2 mm of an ellipsoid. Sizes must be whole multiples of the smallest: slices are
            made thick by averaging.
        modalities: names, 2 to 8.
        seed: the data set's seed; a case depends on it and on its own number only.
        orientation: where the axes of the stored array point, e.g. 'LPS' or 'RAS'. The head
            stays where it is in the world.
        naming: whose file names to use: 'phantom', 'brats2018', 'brats2019', 'brats2020',
            'brats2021' or 'brats2023' (whose enhancing rim is label 3).
        grid: icbm152: 'brain' = as large as a head needs; 'brats' = 240 x 240 x 155 of 1 mm.
        head: icbm152: True = with skull, scalp, eyes and noise in the air.
        thick_slices: icbm152: True = slices of 1 to 6 mm, other ones for each scanner.
        scanner_seed: icbm152: one scanner for all cases, as at one site; None = one for each case.
        size: simple: edge of the cube that a case is made in, voxels; 48.
        difficulty: simple: 0..1, see `make_case`; 1.
        workers: processes that make cases side by side; the cases are the same.

    Returns:
        The path of the datalist, `output_dir`/datalist.json; paths in it are relative to it.

    Raises:
        ValueError: a parameter that is out of range, named with what was expected.
        ModuleNotFoundError: nilearn, which ships the template, is not installed.
    """
    arguments = dict(locals())
    folder, workers = Path(arguments.pop("output_dir")), arguments.pop("workers")
    return write_cases(folder, parameters_of(**arguments), keep_existing=False, workers=workers)


def ensure_phantom(output_dir: str | Path, **parameters: Any) -> str:
    """Write a data set unless the folder holds it already; complete one that was interrupted.

    Args:
        output_dir: the folder.
        **parameters: as `write_phantom`.

    Returns:
        The path of the datalist.

    Raises:
        ValueError: the folder holds something else, or a parameter is out of range.
    """
    call = signature(write_phantom).bind(output_dir, **parameters)
    call.apply_defaults()
    folder, workers = Path(call.arguments.pop("output_dir")), call.arguments.pop("workers")
    wanted = parameters_of(**call.arguments)
    check_folder(folder, wanted)
    if is_complete(folder, wanted):
        return str(folder / DATALIST)
    return str(write_cases(folder, wanted, keep_existing=True, workers=workers))


def check_folder(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse a folder that holds anything but this data set, whole or in part.

    Raises:
        ValueError: naming the folder and the parameters in which it differs.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    records = [folder / name for name in (DATALIST, UNFINISHED) if (folder / name).is_file()]
    found = json.loads(records[0].read_text()).get("phantom") if records else None
    if found is None:
        raise ValueError(
            f"{folder}: expected an empty folder or a phantom data set, found something else. "
            f"Choose another folder."
        )
    # Until 0.6.0 there was one anatomy, and no word for it.
    found = {"anatomy": "simple", **found}
    names = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    if names:
        told = "; ".join(f"{n}: expected {wanted.get(n)}, found {found.get(n)}" for n in names)
        raise ValueError(
            f"{folder}: holds a phantom data set made with other parameters ({told}). "
            f"Choose another folder, or delete this one."
        )


def is_complete(folder: Path, parameters: Mapping[str, Any]) -> bool:
    """Say whether the datalist and every file that it names are there."""
    cases = chain.from_iterable(list_cases(parameters).values())
    files = [DATALIST, *chain.from_iterable(case.files for case in cases)]
    return all((folder / file).is_file() for file in files)


def write_cases(
    folder: Path, parameters: Mapping[str, Any], keep_existing: bool, workers: int = 1
) -> Path:
    """Write the cases, then the datalist; until then another file marks the folder as ours."""
    check_workers(workers)
    notice = template_notice() if parameters["anatomy"] == "icbm152" else None
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / UNFINISHED, {"phantom": parameters})
    (folder / DATALIST).unlink(missing_ok=True)
    sections = list_cases(parameters)
    if notice is not None:
        write_text_atomically(folder / NOTICE_FILE, notice)
    cases = list(chain.from_iterable(sections.values()))
    there = [
        case
        for case in cases
        if keep_existing and all((folder / file).is_file() for file in case.files)
    ]
    calls = [(folder, case, parameters) for case in cases if case not in there]
    with tqdm(total=len(cases), initial=len(there), desc="phantom", unit="case") as bar:
        for _ in run_all(write_case, calls, workers):
            bar.update()
    _write_json(folder / DATALIST, datalist_of(parameters, sections))
    (folder / UNFINISHED).unlink(missing_ok=True)
    return folder / DATALIST


def datalist_of(
    parameters: Mapping[str, Any], sections: Mapping[str, Sequence[Case]]
) -> dict[str, Any]:
    """Describe the data set as a datalist, with the parameters that made it."""
    entries = {
        section: [{"case": c.name, "image": c.image, "label": c.label} for c in cases]
        for section, cases in sections.items()
    }
    return {"phantom": parameters, "modalities": parameters["modalities"], **entries}


def write_case(folder: Path, case: Case, parameters: Mapping[str, Any]) -> None:
    """Make one case and write its files."""
    images, labels = make_one(case.seed, parameters)
    labels[labels == RIM_LABEL] = NAMINGS[parameters["naming"]].rim_label
    volumes = [*(images[modality].astype(np.int16) for modality in case.image), labels]
    for volume, file in zip(volumes, case.files, strict=True):
        save(
            volume,
            parameters["spacing_mm"],
            parameters["orientation"],
            folder / file,
            BRATS_ORIGIN_MM if parameters.get("grid") == "brats" else None,
        )


def make_one(seed: int, parameters: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Make one case in memory: its images and its labels, as `make_case` of its anatomy."""
    if parameters["anatomy"] == "simple":
        slab = slab_of(parameters["spacing_mm"])
        return make_case(
            seed, parameters["size"], parameters["modalities"], parameters["difficulty"], slab
        )
    # Only here: it reads the template, and who wants an ellipsoid may lack nilearn.
    from bundle.phantom.icbm152.case import make_case as make_anatomical

    names = ("modalities", "spacing_mm", "grid", "head", "thick_slices", "scanner_seed")
    return make_anatomical(seed, **{name: parameters[name] for name in names})


def template_notice() -> str:
    """Return the notice of the template, or say that its package is not installed."""
    from bundle.phantom.icbm152.template import NOTICE, find_files

    find_files()
    return NOTICE


def save(
    volume: np.ndarray,
    spacing_mm: Sequence[float],
    orientation: str,
    file: Path,
    origin_mm: Sequence[float] | None = None,
) -> None:
    """Save a volume (D, H, W), whose axes point left, back and up.

    Args:
        volume: int16 or uint8.
        spacing_mm: voxel size along left-right, front-back and down-up.
        orientation: where the axes of the stored array shall point.
        file: the path; it appears only once it is complete.
        origin_mm: where the first voxel lies; None = such that the centre is at 0, 0, 0 mm.
    """
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    centred = -affine[:3, :3] @ (np.array(volume.shape) - 1) / 2
    affine[:3, 3] = centred if origin_mm is None else origin_mm
    turn = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(orientation))
    image = nib.Nifti1Image(volume, affine).as_reoriented(turn)
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"Patchwork phantom: no patient"
    with written_atomically(file) as target:
        if file.suffix == ".gz":
            # As nibabel packs: fast, and without a time, so that equal voxels give equal bytes.
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=target, mtime=0) as packed:
                packed.write(image.to_bytes())
        else:
            target.write(image.to_bytes())


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    write_text_atomically(file, json.dumps(content, indent=2) + "\n")
