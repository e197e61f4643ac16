"""Loading the modalities of one case, however many there are and however they are named."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from bundle.data.case_files import Files, find_files, is_4d, name_case
from bundle.data.filenames import file_endings, split_name
from bundle.data.volumes import (
    CaseError,
    Grid,
    blank_warning,
    is_blank,
    read_case,
    read_volumes,
)
from bundle.modalities import FILE_SUFFIXES, check_modalities
from bundle.transforms.monai_label import answer, settle_format
from bundle.transforms.outside import mark_nonzero

logger = logging.getLogger(__name__)


class LoadModalitiesd(MapTransform):
    """Load one case into an image (M, D, H, W) float32 and say which modalities are there.

    The input under each key may be

    - a dict modality -> path (null or absent = not scanned),
    - a list of paths and nulls, each file's name telling its modality,
    - a folder of one case,
    - one 3D file, whose siblings in the same folder share its prefix; if its name tells nothing,
      the item may say what it is under `modality`,
    - one 4D file, channels in vocabulary order: the only form that goes by position, because a 4D
      file has no names; an all-zero channel is absent.

    Absent modalities and constant volumes become zeros. Not a LoadImaged subclass: MONAI Label
    wraps those and could then not pass folders, lists or gaps.

    Args:
        keys: usually "image".
        modalities: the vocabulary, in channel order.
        suffixes: endings of file names by modality; a modality's own name always counts.
        present_key: where `present` (M,) bool goes, True = available.
        copy_key: where a copy goes that stays as scanned, for pictures; None = no copy.
        modality_key: where an item may say what a single file is whose name does not.
        nonzero_key: where (1, D, H, W) uint8 goes, on the grid of the files: bit m is set where
            modality m is not exactly 0 (`bundle.transforms.outside`); None = nowhere.
    """

    def __init__(
        self,
        keys: KeysCollection,
        modalities: Sequence[str],
        suffixes: Mapping[str, Sequence[str]] | None = None,
        present_key: str = "present",
        copy_key: str | None = None,
        modality_key: str = "modality",
        nonzero_key: str | None = "nonzero",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modalities = check_modalities(modalities)
        self.endings = file_endings(
            self.modalities, FILE_SUFFIXES if suffixes is None else suffixes
        )
        self.present_key = present_key
        self.copy_key = copy_key
        self.modality_key = modality_key
        self.nonzero_key = nonzero_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load; also sets `case` where the item has none.

        Raises:
            CaseError: whatever is wrong, naming case and file: a missing or unreadable file, grids
                that differ, NaN, two files of one modality, no modality recognisable or present.
            ValueError: a dict that names an unknown modality.
            Exception: in a server, what makes it send these messages
                (`bundle.transforms.monai_label.answer`).
        """
        try:
            return self._load(data)
        except ValueError as error:
            if (said := answer(error)) is error:
                raise
            raise said from error

    def _load(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            source = item[key]
            if source == "":
                raise CaseError("no image: the path is empty, so the server has none of that name.")
            case = item["case"] = str(item.get("case") or name_case(source, self.endings))
            settle_format(item, source)
            if is_4d(source, case):
                voxels, grid = self._load_4d(Path(source), case)
            else:
                source = self._named(source, item.get(self.modality_key))
                files = find_files(source, self.modalities, case, self.endings)
                voxels, grid = self._load_files(files, case)
            present = torch.from_numpy(voxels.reshape(len(voxels), -1).any(1))
            if not present.any():
                raise CaseError(
                    f"case {case}: nothing is present, every volume of {source} is constant. "
                    "Take the case out of the list."
                )
            # No `filename_or_obj`: MONAI's Spacingd would go on to update every `image_*` key.
            affine = torch.as_tensor(grid.affine)
            # The forms are for what is written on this grid (`bundle.transforms.save`).
            forms = {
                "forms": torch.as_tensor(grid.forms.affines),
                "form_codes": torch.as_tensor(grid.forms.codes),
            }
            meta = {"original_affine": affine, "case": case, **forms}
            item[key] = MetaTensor(torch.from_numpy(voxels), affine=affine, meta=meta)
            item[self.present_key] = present
            if self.nonzero_key is not None:
                item[self.nonzero_key] = mark_nonzero(item[key])
            if self.copy_key is not None:
                item[self.copy_key] = item[key].clone()
        return item

    def _named(self, source: Any, modality: Any) -> Any:
        """Use the modality that the item states for a file whose name tells none."""
        is_file = isinstance(source, (str, Path)) and Path(source).is_file()
        known = isinstance(modality, str) and modality in self.modalities
        if is_file and known and split_name(source, self.endings)[1] is None:
            return {modality: source}
        return source

    def _load_files(self, files: Files, case: str) -> tuple[np.ndarray, Grid]:
        volumes = read_case(files, case)
        for name in volumes.blank:
            logger.warning(blank_warning(case, name, files[name]))
        voxels = np.zeros((len(self.modalities), *volumes.grid.shape), dtype=np.float32)
        for channel, name in enumerate(self.modalities):
            if name in volumes.voxels:
                # Taken out, so that no volume is held twice.
                voxels[channel] = volumes.voxels.pop(name)
        return voxels, volumes.grid

    def _load_4d(self, path: Path, case: str) -> tuple[np.ndarray, Grid]:
        voxels, grid = read_volumes(path, case, len(self.modalities))
        for volume in voxels:
            volume[...] = 0 if is_blank(volume) else volume
        return voxels, grid
