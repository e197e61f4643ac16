"""MONAI Label's training of the bundle: on one GPU, with the cases that can be read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import partition_dataset
from monai.handlers import CheckpointLoader
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.others.generic import name_to_device

logger = logging.getLogger(__name__)


class OneGpuTraining(BundleTrainTask):
    """MONAI Label's training, which asks for several GPUs unless it is told not to.

    Args:
        path: the bundle's folder.
        conf: the app's settings.
    """

    def __init__(self, path: str, conf: dict[str, str]) -> None:
        # Weights that fit in part would be loaded in part.
        super().__init__(path, conf, load_strict=True)

    def config(self) -> dict[str, Any]:
        """List what a client may choose."""
        return super().config() | {"multi_gpu": False}

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train on one GPU, whatever was asked for.

        Raises:
            ValueError: no labelled case, or none that can be read.
            FileNotFoundError: the weights to go on from are not there.
        """
        request = dict(request)
        count, gpus = torch.cuda.device_count(), str(request.get("gpus") or "all")
        several = count > 1 and request.get("multi_gpu", True)
        if several or request.get("force_multi_gpu"):
            logger.warning(
                f"this bundle trains on one GPU: {gpus} of {count} GPUs were asked for, one is used"
            )
        device = name_to_device(request.get("device", "cuda"))
        if device.startswith("cuda") and gpus != "all":
            device = f"cuda:{int(gpus.split(',')[0])}"
        chosen = {"multi_gpu": False, "force_multi_gpu": False, "gpus": gpus, "device": device}
        return super().__call__(request | chosen, datastore)

    def _fetch_datalist(self, request: dict[str, Any], datastore: Datastore) -> list[Any]:
        """Leave out, and name, the cases that training could not read."""
        from bundle.data.case_files import spell_out
        from bundle.data.check_cases import CheckMemo, check_cases
        from bundle.data.volumes import CaseError

        items = super()._fetch_datalist(request, datastore)
        if not items:
            raise ValueError("no case is labelled: submit labels first, then train")
        checks = self._checks()
        spelled, usable, problems = [], set(), []
        for item in items:
            try:
                named = spell_out(item, checks.modalities, *self._suffixes())
            except CaseError as error:
                problems.append(str(error))
                continue
            if isinstance(named["image"], Mapping):
                spelled.append(named)
            else:
                usable.add(item["label"])  # a 4D file, which the checks do not know
        memo = CheckMemo(Path(self.bundle_path) / "cache" / "checked_labels.json", checks)
        good, bad = check_cases(spelled, checks, memo, "checking labelled cases")
        memo.save()
        problems += bad
        for problem in problems:
            logger.error(f"left out of the training: {problem}")
        usable |= {finding.item["label"] for finding in good}
        if not usable:
            raise ValueError("\n".join(["no labelled case can be read:", *problems]))
        kept = [item for item in items if item["label"] in usable]
        logger.info(f"training with {len(kept)} of {len(items)} labelled cases")
        return kept

    def _suffixes(self) -> list[Any]:
        """Give the config's further endings of file names; none = it has none."""
        given = self.bundle_config.config.get("suffixes")
        return [given] if given else []

    def _checks(self) -> Any:
        from bundle.data.check_cases import Checks
        from bundle.regions import known_labels

        config: Mapping[str, Any] = self.bundle_config.config
        regions = {name: tuple(values) for name, values in config["regions"].items()}
        aliases = {int(k): int(v) for k, v in (config.get("label_aliases") or {}).items()}
        known = tuple(known_labels(regions))
        return Checks(tuple(config["modalities"]), known, aliases, "voxels", regions)

    def _partition_datalist(
        self, datalist: list[Any], request: dict[str, Any], shuffle: bool = False
    ) -> tuple[list[Any], list[Any] | None]:
        """Split into training and validation by patient: a patient is in one of them."""
        from bundle.data.case_files import name_case
        from bundle.data.filenames import file_endings
        from bundle.data.patients import patient_of

        share = request.get("val_split", 0.2)
        if share <= 0:
            return super()._partition_datalist(datalist, request, shuffle)
        endings = file_endings(self.bundle_config.config["modalities"], *self._suffixes())
        patients: dict[str, list[Any]] = {}
        for item in datalist:
            patient = patient_of({"case": name_case(item["image"], endings)})
            patients.setdefault(patient, []).append(item)
        parts = partition_dataset(list(patients), ratios=[1 - share, share], shuffle=shuffle)
        train, validate = ([item for name in part for item in patients[name]] for part in parts)
        logger.info(f"training with {len(train)} cases, validating with {len(validate)}")
        return train, validate

    def _load_checkpoint(
        self, model_pytorch: str, pretrained: bool, train_handlers: list[Any]
    ) -> None:
        """Go on from weights, or start from random ones, as the request says.

        Raises:
            FileNotFoundError: there are no such weights.
        """
        name = CheckpointLoader.__name__
        # The list is the config's own: it still has what an earlier training put there.
        others = [h for h in train_handlers if not _is_a(h, name)]
        train_handlers[:] = others
        if not pretrained:
            logger.info("the training starts from random weights, as was asked for")
            return
        if not Path(model_pytorch).is_file():
            raise FileNotFoundError(
                f"expected the weights to go on from in {model_pytorch}, found no such file. "
                "Choose another model_filename, or train with pretrained: false."
            )
        super()._load_checkpoint(model_pytorch, pretrained, train_handlers)


def _is_a(handler: Any, name: str) -> bool:
    return isinstance(handler, Mapping) and handler.get("_target_") == name
