"""MONAI Label's app for bundles, which next asks for the case whose modalities contradict most.

`python -m bundle label` copies MONAI Label's own app into a folder, its `main.py` under the name
`stock_main.py`, and this file beside it. All that the own app can do stays as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import stock_main
from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.infer.basic_infer import CallBackTypes
from monailabel.tasks.infer.bundle import BundleInferTask

logger = logging.getLogger(__name__)

NAME = "disagreement"
# Beside the score: the time of the weights that gave it.
WEIGHTS_TIME = f"{NAME}_of_weights"


# MONAI Label looks for a class with MONAILabelApp among its own bases.
class PatchworkApp(stock_main.MyApp, MONAILabelApp):
    """The stock app plus one scoring method and one strategy, both called `disagreement`."""

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Add the score, of the first model that knows modalities."""
        methods = super().init_scoring_methods()
        ours = [task for task in self._infers.values() if _knows_modalities(task)]
        return methods | ({NAME: Disagreement(ours[0])} if ours else {})

    def init_strategies(self) -> dict[str, Strategy]:
        """Add the strategy."""
        ours = [task for task in self._infers.values() if _knows_modalities(task)]
        strategies = super().init_strategies()
        return strategies | ({NAME: MostDisagreement(_endings(ours[0]))} if ours else {})


class Disagreement(ScoringMethod):
    """Score every unlabelled case: how far its segmentations from fewer modalities lie apart.

    Args:
        task: MONAI Label's inference with the bundle.
    """

    def __init__(self, task: BundleInferTask) -> None:
        super().__init__("How far the segmentations from fewer modalities lie apart")
        self.task = task

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, int]:
        """Score the cases that these weights have not scored; return how many of how many."""
        time = int(Path(self.task.get_path()).stat().st_mtime)
        cases = _by_case(_open_images(datastore, _endings(self.task)), _endings(self.task))
        old = {
            case
            for case, images in cases.items()
            if all(datastore.get_image_info(i).get(WEIGHTS_TIME) == time for i in images)
        }
        for case in sorted(set(cases) - old):
            score = self.score(datastore.get_image_uri(cases[case][0]), request.get("device"))
            logger.info(f"{NAME} of {case}: {score:.4f}")
            for image in cases[case]:
                datastore.update_image_info(image, {NAME: score, WEIGHTS_TIME: time})
        return {"total": len(cases), "skipped": len(old), "executed": len(cases) - len(old)}

    def score(self, path: str, device: str | None = None) -> float:
        """Return the disagreement, summed over the case, per voxel that is probably tumour.

        Args:
            path: one of the case's files.
            device: where to compute; None = MONAI Label's choice.

        Returns:
            0 = all agree. One voxel is added to the tumour, so that a case where only some of the
            segmentations see any comes first.
        """
        # Only now: MONAI Label has to load the code that lies beside the model.
        from bundle.inference.extra_outputs import complete, disagreement

        found: list[float] = []

        def compare(data: dict[str, Any]) -> dict[str, Any]:
            network = self.task._get_network(data["device"], data)
            inferer = self.task.inferer(data)
            image, present = data["image"].as_tensor()[None], data["present"][None]
            image, logits = image.to(data["pred"].device), data["pred"][None]
            autoencoder = getattr(network, "autoencoder", None)
            whole = None if autoencoder is None else complete(inferer, autoencoder, image, present)
            spread = disagreement(inferer, network, image, present, logits, whole)
            tumour = logits.sigmoid().amax(1).sum()
            found.append(float(spread.sum() / (tumour + 1)))
            return data

        import torch

        request = {"image": path, "logging": "error", "skip_writer": True}
        request |= {"device": device} if device else {}
        with torch.no_grad():
            self.task(request, callbacks={CallBackTypes.INFERER: compare})
        return found[0]


class MostDisagreement(Strategy):
    """Choose the unlabelled case with the highest score.

    Args:
        endings: of file names, and the modalities that they mean.
    """

    def __init__(self, endings: dict[str, str]) -> None:
        super().__init__("The case whose modalities contradict each other most; needs the scores")
        self.endings = endings

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the image to label, or None if every case is labelled.

        Raises:
            HTTPException: no case has a score yet.
        """
        images = _open_images(datastore, self.endings)
        scores = {image: datastore.get_image_info(image).get(NAME) for image in images}
        known = {image: score for image, score in scores.items() if score is not None}
        if images and not known:
            raise HTTPException(
                status_code=409,
                detail=f"no unlabelled case has a score yet. Run the scoring method {NAME} first.",
            )
        if not known:
            return None
        chosen = max(sorted(known), key=known.__getitem__)
        return {"id": chosen, "weight": known[chosen]}


def _knows_modalities(task: Any) -> bool:
    return isinstance(task, BundleInferTask) and bool(task.bundle_config.get("modalities"))


def _endings(task: BundleInferTask) -> dict[str, str]:
    from bundle.data.filenames import file_endings

    config = task.bundle_config
    return file_endings(config.get("modalities"), config.get("suffixes"))


def _by_case(images: Iterable[str], endings: dict[str, str]) -> dict[str, list[str]]:
    """Group the datastore's images, which it takes for unrelated, by the case they belong to."""
    cases: dict[str, list[str]] = {}
    for image in sorted(images):
        cases.setdefault(_case_of(image, endings), []).append(image)
    return cases


def _open_images(datastore: Datastore, endings: dict[str, str]) -> list[str]:
    """List the images of cases of which no image is labelled."""
    done = {_case_of(image, endings) for image in datastore.get_labeled_images()}
    return [i for i in datastore.get_unlabeled_images() if _case_of(i, endings) not in done]


def _case_of(image: str, endings: dict[str, str]) -> str:
    from bundle.data.filenames import split_name

    return split_name(f"{image}.nii.gz", endings)[0]
