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

from bundle.data.filenames import file_endings, is_volume, split_name
from bundle.data.volumes import (
    CaseError,
    check_grids,
    count_volumes,
    is_blank,
    read_grid,
    read_volumes,
    read_voxels,
)
from bundle.modalities import FILE_SUFFIXES, check_known, check_modalities
from bundle.transforms.monai_label import answer, settle_format

logger = logging.getLogger(__name__)

Files = dict[str, Path]


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
    """

    def __init__(
        self,
        keys: KeysCollection,
        modalities: Sequence[str],
        suffixes: Mapping[str, Sequence[str]] | None = None,
        present_key: str = "present",
        copy_key: str | None = None,
        modality_key: str = "modality",
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
            case = item["case"] = str(item.get("case") or self._case_name(source))
            settle_format(item, source)
            if _is_4d(source, case):
                voxels, affine = self._load_4d(Path(source), case)
            else:
                source = self._named(source, item.get(self.modality_key))
                voxels, affine = self._load_files(self.find_files(source, case), case)
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

    def spell_out(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return an item that names its case and the file of each modality; a 4D file stays one.

        Raises:
            CaseError: a missing file, two files of one modality, no modality recognisable.
        """
        source = item["image"]
        case = str(item.get("case") or self._case_name(source))
        if not _is_4d(source, case):
            files = self.find_files(source, case)
            source = {name: str(path) for name, path in files.items()}
        return {**item, "case": case, "image": source}

    def _named(self, source: Any, modality: Any) -> Any:
        """Give a file without a telling name the modality that the item says, if it says one."""
        is_file = isinstance(source, (str, Path)) and Path(source).is_file()
        known = isinstance(modality, str) and modality in self.modalities
        if is_file and known and split_name(source, self.endings)[1] is None:
            return {modality: source}
        return source

    def find_files(self, source: Any, case: str) -> Files:
        """Map modalities to files; see the class for what `source` may be."""
        if isinstance(source, Mapping):
            check_known(source, self.modalities, f"case {case}")
            files = {name: Path(source[name]) for name in self.modalities if source.get(name)}
        elif isinstance(source, (list, tuple)):
            files = self._recognise([Path(path) for path in source if path], case)
        elif Path(source).is_dir():
            files = self._recognise(_volumes_in(Path(source)), case, strict=False)
        else:
            files = self._siblings(Path(source), case)
        if not files:
            raise CaseError(
                f"case {case}: no modality is recognisable in {source}. Expected files whose names "
                f"end in one of {self._readable_endings()}, such as "
                f"{case}_{self.modalities[0]}.nii.gz."
            )
        return files

    def _recognise(self, paths: Sequence[Path], case: str, strict: bool = True) -> Files:
        files: Files = {}
        for path in paths:
            _, role = split_name(path, self.endings)
            if role not in self.modalities:
                if strict:
                    raise CaseError(
                        f"case {case}: the name of {path} tells no modality. Expected it to end in "
                        f"one of {self._readable_endings()}. Rename it, or pass a dict of modality "
                        "and path (for a single file also by `modality`): lists are never read by "
                        "position."
                    )
                continue
            if role in files:
                raise CaseError(
                    f"case {case}: two files for '{role}', {files[role].name} and {path.name}. "
                    "Expected one. Remove one of them."
                )
            files[role] = path
        return {name: files[name] for name in self.modalities if name in files}

    def _siblings(self, path: Path, case: str) -> Files:
        if not path.is_file():
            raise CaseError(f"case {case}: file {path} does not exist. Correct the path.")
        prefix, role = split_name(path, self.endings)
        if role not in self.modalities:
            return self._recognise([path], case)
        near = _volumes_in(path.parent)
        same = [other for other in near if split_name(other, self.endings)[0] == prefix]
        return self._recognise(same, case, strict=False)

    def _load_files(self, files: Files, case: str) -> tuple[np.ndarray, np.ndarray]:
        grids = {path: read_grid(path, case) for path in files.values()}
        check_grids(grids, case)
        grid = next(iter(grids.values()))
        voxels = np.zeros((len(self.modalities), *grid.shape), dtype=np.float32)
        for name, path in files.items():
            volume = read_voxels(path, case)
            if is_blank(volume):
                logger.warning("case %s: %s is constant: '%s' counts as absent", case, path, name)
            else:
                voxels[self.modalities.index(name)] = volume
        return voxels, grid.affine

    def _load_4d(self, path: Path, case: str) -> tuple[np.ndarray, np.ndarray]:
        voxels, grid = read_volumes(path, case, len(self.modalities))
        for volume in voxels:
            volume[...] = 0 if is_blank(volume) else volume
        return voxels, grid.affine

    def _case_name(self, source: Any) -> str:
        if isinstance(source, Mapping):
            source = [path for path in source.values() if path]
        if isinstance(source, (list, tuple)):
            source = next((path for path in source if path), "unnamed")
        path = Path(source)
        if path.is_dir():
            return path.name
        prefix, _ = split_name(path, self.endings)
        return prefix or path.parent.name

    def _readable_endings(self) -> str:
        return ", ".join(
            f"_{end} ({name})" for end, name in self.endings.items() if name in self.modalities
        )


def _volumes_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and is_volume(path.name))


def _is_4d(source: Any, case: str) -> bool:
    """True = one NIfTI file that holds more than one volume."""
    is_file = isinstance(source, (str, Path)) and Path(source).is_file()
    return is_file and count_volumes(source, case) > 1


def case_file_name(meta: Mapping[str, Any], saver: Any) -> dict[str, Any]:
    """Name a written file after its case: SaveImaged's `output_name_formatter`."""
    # The dot at the end stands for the one at which SaveImaged cuts the name off.
    return {"subject": f"{meta.get('case', 'case')}.", "idx": None}
