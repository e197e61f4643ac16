"""The ICBM 2009a template of a young brain, as nilearn's package ships it; nothing is downloaded.

Source: Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage
2011, symmetric version. Its notice, `NOTICE`, goes with everything that is made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy import ndimage

NOTICE = """\
The heads of this data set are made from the ICBM 2009a nonlinear symmetric template.

Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University. Permission to use, copy, modify, and distribute this software and its
documentation for any purpose and without fee is hereby granted, provided that the above copyright
notice appear in all copies. The authors and McGill University make no representations about the
suitability of this software for any purpose. It is provided "as is" without express or implied
warranty. The authors are not responsible for any data loss, equipment damage, property loss, or
injury to subjects or patients resulting from the use or misuse of this software package.

No patient is in it: persons, tumours and scans are made up.
"""
_FILE = "mni_icbm152_{part}_tal_nlin_sym_09a_converted.nii.gz"
# Voxels of 1 mm beyond the brain, so that a warp finds air and not an edge.
_MARGIN = 12
_VENTRICLE_BLUR = 5


@dataclass(frozen=True)
class Template:
    """The template; axes point left, back and up, voxels are 1 mm.

    Attributes:
        grey, white, fluid: (D, H, W) float32 in 0..1, the share of each tissue.
        texture: (D, H, W) float32, T1 relative to what the shares alone would give, minus 1.
        inside: (D, H, W) float32, mm to the brain's surface, negative outside
            (right near the brain, -2 far from it).
        towards_ventricles: (3, D, H, W) float32, points to the nearest ventricle, at most 1 long.
        centre: the point of the array, in voxels, that lies in the middle of a head's grid.
    """

    grey: np.ndarray
    white: np.ndarray
    fluid: np.ndarray
    texture: np.ndarray
    inside: np.ndarray
    towards_ventricles: np.ndarray
    centre: tuple[float, float, float]


def find_files() -> dict[str, Path]:
    """Find the three files within nilearn, which is not imported.

    Raises:
        ModuleNotFoundError: nilearn is not installed, or has other files.
    """
    spec = find_spec("nilearn")
    folders = spec.submodule_search_locations if spec is not None else None
    files = {
        part: Path(folder) / "datasets" / "data" / _FILE.format(part=part)
        for folder in (folders or ())
        for part in ("t1", "gm", "wm")
    }
    lost = [file.name for file in files.values() if not file.is_file()]
    if not files or lost:
        found = f"one without {lost[0]}" if lost else "none"
        raise ModuleNotFoundError(
            "expected the package nilearn, whose ICBM 2009a template is the phantom's anatomy, "
            f"found {found}. Install it (pip install nilearn), or take the ellipsoid: "
            "--anatomy simple."
        )
    return files


@cache
def template() -> Template:
    """Read the template, once in a process."""
    t1, grey, white = (_read(file) for file in find_files().values())
    brain = ndimage.binary_fill_holes(t1 > 0)
    grey, white = (np.where(brain, share, 0).astype(np.float32) for share in (grey, white))
    fluid = np.where(brain, np.clip(1 - grey - white, 0, 1), 0).astype(np.float32)
    inside = _depth(brain)
    low, high = (f(np.argwhere(brain), axis=0) for f in (np.min, np.max))
    return Template(
        grey,
        white,
        fluid,
        _texture(t1, grey, white, fluid, brain),
        inside,
        _towards_ventricles(fluid, inside),
        tuple(((low + high) / 2).tolist()),
    )


def _read(file: Path) -> np.ndarray:
    image = nib.load(file)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt("LPS"))
    voxels = np.asarray(image.as_reoriented(turn).dataobj, np.float32) / 255
    return np.pad(voxels, _MARGIN)


def _texture(
    t1: np.ndarray, grey: np.ndarray, white: np.ndarray, fluid: np.ndarray, brain: np.ndarray
) -> np.ndarray:
    """Divide T1 by what the shares explain; edges, which a blurred mask would show, are faded."""
    shares = np.stack([part[brain] for part in (grey, white, fluid)], 1)
    signal = np.linalg.lstsq(shares, t1[brain], rcond=None)[0]
    texture = np.zeros_like(t1)
    texture[brain] = np.clip(t1[brain] / np.maximum(shares @ signal, 0.05) - 1, -0.25, 0.25)
    # Fluid is a few voxels wide: what is left over there is partial volume and no structure.
    return (texture * (1 - fluid)).astype(np.float32)


def _depth(brain: np.ndarray) -> np.ndarray:
    """Measure the mm to the brain's surface; beyond 2 mm outside of its box it is -2."""
    box = _box(brain, 2)
    depth = np.full(brain.shape, -2, np.float32)
    near = brain[box]
    depth[box] = ndimage.distance_transform_edt(near) - ndimage.distance_transform_edt(~near)
    return depth


def _box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """Bound what is True, with a margin of voxels: what happens outside costs time for nothing."""
    (found,) = ndimage.find_objects(mask.view(np.uint8))
    return tuple(
        slice(max(0, s.start - margin), min(n, s.stop + margin))
        for s, n in zip(found, mask.shape, strict=True)
    )


def _towards_ventricles(fluid: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Find which way the ventricles lie: the gradient of their blurred outline."""
    deep = (fluid > 0.5) & (inside > 22)
    parts, count = ndimage.label(deep)
    sizes = ndimage.sum_labels(deep, parts, range(1, count + 1))
    ventricles = parts == 1 + int(np.argmax(sizes))
    # As far as the blur reaches, and the voxels on which its gradient is taken.
    box = _box(ventricles, 4 * _VENTRICLE_BLUR + 2)
    blurred = ndimage.gaussian_filter(ventricles[box].astype(np.float32), _VENTRICLE_BLUR)
    slope = np.zeros((3, *fluid.shape), np.float32)
    slope[(slice(None), *box)] = np.gradient(blurred)
    return slope / np.linalg.norm(slope[(slice(None), *box)], axis=0).max()
