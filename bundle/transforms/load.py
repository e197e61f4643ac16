"""Loading the modalities of one case, however many there are and however they are named."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from bundle.data.case_files import find_files, is_4d, name_case
from bundle.data.case_rules import CHECKED, impossible
from bundle.data.channels import channel_order, check_order, unknown_order
from bundle.data.filenames import Suffixes, file_endings, split_name
from bundle.data.folders import check_path
from bundle.data.plausibility.judge import judge
from bundle.data.plausibility.measure import CaseMeter
from bundle.data.volumes import (
    CaseError,
    CaseVolumes,
    blank_warning,
    count_volumes,
    is_blank,
    read_case,
    read_volumes,
)
from bundle.modalities import check_modalities
from bundle.transforms.monai_label import answer, settle_format, tell
from bundle.transforms.outside import mark_nonzero

logger = logging.getLogger(__name__)

# What a client of MONAI Label chooses for a file whose name tells the modality.
AS_NAMED = "as the file is named"


class LoadModalitiesd(MapTransform):
    """Load one case into an image (M, D, H, W) float32 and say which modalities are there.

    The input under each key may be

    - a dict modality -> path (null or absent = not scanned),
    - a list of paths and nulls, each file's name telling its modality,
    - a folder of one case,
    - one 3D file, whose siblings in the same folder share its prefix; if its name tells nothing,
      the item may say what it is under `modality`,
    - one 4D file, whose volumes are named in order by the item's `channel_order`, else by this
      transform's, else by a dataset.json (`bundle.data.channels`); the order is never guessed. A
      constant volume is absent.

    Absent modalities and constant volumes become zeros. Not a LoadImaged subclass: MONAI Label
    wraps those and could then not pass folders, lists or gaps.

    Args:
        keys: usually "image".
        modalities: the vocabulary, in channel order.
        suffixes: endings of file names besides the known ones, see `read_suffixes`.
        present_key: where `present` (M,) bool goes, True = available.
        copy_key: where a copy goes that stays as scanned, for pictures; None = no copy.
        modality_key: where an item may say what a single file is whose name does not.
        channel_order: the modality of each volume of a 4D file, null = left out; None = as its
            dataset.json says.
        odd: what becomes of a case that no check has seen (`bundle.data.case_rules.CHECKED`) and
            that breaks a rule of `bundle.data.plausibility`: "warn", also in a server's answer;
            "refuse" where no result can be right; "ignore" = nothing is measured, as in training,
            where the datalist was checked.
        nonzero_key: where (1, D, H, W) uint8 goes, on the grid of the files: bit m is set where
            modality m is not exactly 0 (`bundle.transforms.outside`); None = nowhere.
    """

    def __init__(
        self,
        keys: KeysCollection,
        modalities: Sequence[str],
        suffixes: Suffixes = None,
        present_key: str = "present",
        copy_key: str | None = None,
        modality_key: str = "modality",
        nonzero_key: str | None = "nonzero",
        allow_missing_keys: bool = False,
        channel_order: Sequence[str | None] | None = None,
        odd: Literal["warn", "refuse", "ignore"] = "ignore",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modalities = check_modalities(modalities)
        self.endings = file_endings(self.modalities, suffixes)
        self.present_key = present_key
        self.copy_key = copy_key
        self.modality_key = modality_key
        if odd not in ("warn", "refuse", "ignore"):
            raise ValueError(f"odd: expected 'warn', 'refuse' or 'ignore', got {odd!r}")
        self.odd = odd
        self.channel_order = (
            None
            if channel_order is None
            else check_order(channel_order, self.modalities, "loading")
        )
        self.nonzero_key = nonzero_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load; also sets `case` where the item has none.

        Raises:
            CaseError: whatever is wrong, naming case and file: a missing or unreadable file, grids
                that differ, NaN, two files of one modality, no modality recognisable or present, a
                4D file of unknown order; with odd="warn" two equal scans or a label among them,
                with odd="refuse" all with which no result can be right.
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
            _check_source(source, f"case {item.get('case') or '(no name)'}")
            case = item["case"] = str(item.get("case") or name_case(source, self.endings))
            settle_format(item, source)
            meter = None if self.odd == "ignore" or item.get(CHECKED) else CaseMeter({})
            look = meter.add if meter else None
            if is_4d(source, case):
                names = self._order_of(source, case, item.get("channel_order"))
                volumes, files = _read_4d(source, case, names, look), dict.fromkeys(names, source)
            else:
                source = self._named(source, item.get(self.modality_key))
                files = find_files(source, self.modalities, case, self.endings)
                volumes = read_case(files, case, look=look)
            for name in volumes.blank:
                logger.warning(blank_warning(case, name, files[name]))
            if meter and volumes.voxels:
                tell(item, self._judge(meter, volumes, files, case))
            voxels, grid = self._stack(volumes), volumes.grid
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

    @staticmethod
    def _letters(text: str) -> str:
        """Return the letters and digits of a word, in lower case."""
        return "".join(filter(str.isalnum, text)).lower()

    def _named(self, source: Any, modality: Any) -> Any:
        """Use the modality that the item states for a file whose name tells none.

        It is stated as a name may end: FLAIR, T1c, t2f, T1-Gd. A name that tells one comes first.

        Raises:
            CaseError: a single file with a modality that is none.
        """
        is_file = isinstance(source, (str, Path)) and Path(source).is_file()
        # A server that was told nothing hands over its whole list of choices.
        if not is_file or not isinstance(modality, str) or modality in ("", AS_NAMED):
            return source
        endings = {self._letters(end): name for end, name in self.endings.items()}
        # First as it stands: two names may differ in a separator alone, adc_1 and adc1.
        exact = self.endings.get(modality.strip().lower())
        stated = exact or endings.get(self._letters(modality))
        if stated not in self.modalities:
            raise CaseError(
                f"modality: {modality!r} of {source} is none. Expected one of "
                f"{', '.join(self.modalities)}, in any spelling in which a file's name may end. "
                "Correct it, or leave it away where the file's name tells the modality."
            )
        told = split_name(source, self.endings)[1]
        if told is None:
            return {stated: source}
        if told != stated:
            logger.warning(f"{source} is taken for {told}, as its name ends, not for {modality!r}")
        return source

    def _order_of(self, path: Any, case: str, said: Any) -> tuple[str | None, ...]:
        """Return what each volume of a 4D file is, and say where that is known from."""
        given = check_order(said, self.modalities, f"case {case}") if said else self.channel_order
        try:
            noted = channel_order(path, self.modalities, self.endings)
        except CaseError:
            if given is None:
                raise
            noted = None  # that is why it was given
        order = given or noted
        if order is None:
            raise unknown_order(path, count_volumes(path, case), self.modalities, case)
        if given and noted and given != noted:
            logger.warning(
                f"case {case}: channel_order says {list(given)}, the dataset.json of {path} says "
                f"{list(noted)}. channel_order counts."
            )
        source = "channel_order" if given else "its dataset.json"
        names = ", ".join(name or "(left out)" for name in order)
        logger.info(f"case {case}: the volumes of {path} are {names}, by {source}")
        return order

    def _judge(
        self, meter: CaseMeter, volumes: CaseVolumes, files: Mapping[Any, Any], case: str
    ) -> list[str]:
        """Refuse what cannot be true or, if so asked, right; return and log what is odd."""
        measured = meter.measure(volumes.grid, volumes.forms_mm)
        wrong = impossible(case, measured, files)
        found = judge(case, measured.numbers)
        if self.odd == "refuse":
            wrong += [str(suspicion) for suspicion in found if suspicion.refused == "strict"]
        if wrong:
            raise CaseError("\n".join(wrong))
        lines = [str(suspicion) for suspicion in found]
        for line in lines:
            logger.warning(line)
        return lines

    def _stack(self, volumes: CaseVolumes) -> np.ndarray:
        """Lay the volumes into (M, D, H, W) float32; what is absent is 0."""
        voxels = np.zeros((len(self.modalities), *volumes.grid.shape), dtype=np.float32)
        for channel, name in enumerate(self.modalities):
            if name in volumes.voxels:
                # Taken out, so that no volume is held twice.
                voxels[channel] = volumes.voxels.pop(name)
        return voxels


def _check_source(source: Any, where: str) -> None:
    """Refuse what is no path or paths, or a path that no file can have.

    Raises:
        CaseError: see `check_path`.
    """
    several = isinstance(source, (Mapping, list, tuple))
    paths = source.values() if isinstance(source, Mapping) else source if several else [source]
    for path in paths:
        if several and not path:
            continue
        if not isinstance(path, (str, Path)):
            raise CaseError(
                f"{where}: expected a path, a list of paths, or a dict of modality and path, got "
                f"{path!r:.80}. Correct the datalist."
            )
        try:
            check_path(path, where)
        except ValueError as error:
            raise CaseError(str(error)) from error


def _read_4d(
    path: Any,
    case: str,
    names: Sequence[str | None],
    look: Callable[[str, np.ndarray], None] | None,
) -> CaseVolumes:
    """Read the volumes of a 4D file under their names, as `read_case` reads several files.

    A volume of zeros is how such a file says that a scan is missing, so nothing is told about it.
    """
    voxels, grid = read_volumes(path, case, names)
    named = {n: volume for n, volume in zip(names, voxels, strict=True) if n and volume.any()}
    blank = [name for name, volume in named.items() if is_blank(volume)]
    for name in blank:
        del named[name]
    for name, volume in named.items() if look else ():
        look(name, volume)
    return CaseVolumes(named, grid, blank, {"the 4D file": grid.forms_mm})
