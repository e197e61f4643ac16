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
from bundle.data.filenames import Suffixes, file_endings, split_name
from bundle.data.volumes import CaseError, blank_warning, is_blank, read_case, read_volumes
from bundle.modalities import check_modalities
from bundle.transforms.monai_label import answer, settle_format

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
        suffixes: endings of file names besides the known ones, see `read_suffixes`.
        present_key: where `present` (M,) bool goes, True = available.
        copy_key: where a copy goes that stays as scanned, for pictures; None = no copy.
        modality_key: where an item may say what a single file is whose name does not.
    """

    def __init__(
        self,
        keys: KeysCollection,
        modalities: Sequence[str],
        suffixes: Suffixes = None,
        present_key: str = "present",
        copy_key: str | None = None,
        modality_key: str = "modality",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modalities = check_modalities(modalities)
        self.endings = file_endings(self.modalities, suffixes)
        self.present_key = present_key
        self.copy_key = copy_key
        self.modality_key = modality_key

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
                voxels, affine = self._load_4d(Path(source), case)
            else:
                source = self._named(source, item.get(self.modality_key))
                files = find_files(source, self.modalities, case, self.endings)
                voxels, affine = self._load_files(files, case)
            present = torch.from_numpy(voxels.reshape(len(voxels), -1).any(1))
            if not present.any():
                raise CaseError(
                    f"case {case}: nothing is present, every volume of {source} is constant. "
                    "Take the case out of the list."
                )
            # No `filename_or_obj`: MONAI's Spacingd would go on to update every `image_*` key.
            meta = {"original_affine": torch.as_tensor(affine), "case": case}
            item[key] = MetaTensor(
                torch.from_numpy(voxels), affine=torch.as_tensor(affine), meta=meta
            )
            item[self.present_key] = present
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

    def _load_files(self, files: Files, case: str) -> tuple[np.ndarray, np.ndarray]:
        volumes = read_case(files, case)
        for name in volumes.blank:
            logger.warning(blank_warning(case, name, files[name]))
        voxels = np.zeros((len(self.modalities), *volumes.grid.shape), dtype=np.float32)
        for channel, name in enumerate(self.modalities):
            if name in volumes.voxels:
                # Taken out, so that no volume is held twice.
                voxels[channel] = volumes.voxels.pop(name)
        return voxels, volumes.grid.affine

    def _load_4d(self, path: Path, case: str) -> tuple[np.ndarray, np.ndarray]:
        voxels, grid = read_volumes(path, case, len(self.modalities))
        for volume in voxels:
            volume[...] = 0 if is_blank(volume) else volume
        return voxels, grid.affine


def case_file_name(meta: Mapping[str, Any], saver: Any) -> dict[str, Any]:
    """Name a written file after its case: SaveImaged's `output_name_formatter`."""
    # The dot at the end stands for the one at which SaveImaged cuts the name off.
    return {"subject": f"{meta.get('case', 'case')}.", "idx": None}
