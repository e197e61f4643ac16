"""Which case to label next: the one whose segmentations from fewer modalities disagree most."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy
from patchwork_cases import open_images
from patchwork_scoring import FAILED, NAME, WEIGHTS

logger = logging.getLogger(__name__)


class MostDisagreement(Strategy):
    """Choose the unlabelled case with the highest score.

    Args:
        endings: of file names, and the modalities that they mean.
    """

    def __init__(self, endings: Mapping[str, str]) -> None:
        super().__init__("The case whose modalities contradict each other most; needs the scores")
        self.endings = dict(endings)

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the image to label, or None if every case is labelled.

        Scores of different weights do not compare: those count that most cases have.

        Raises:
            HTTPException: 409, no case has a score yet, or none of the rest can get one.
        """
        images = open_images(datastore, self.endings)
        infos = {image: datastore.get_image_info(image) for image in images}
        scored = {image: info for image, info in infos.items() if info.get(NAME) is not None}
        if images and not scored:
            raise HTTPException(status_code=409, detail=_why_none(infos.values()))
        if not scored:
            return None
        weights = [info.get(WEIGHTS) for info in scored.values()]
        common = max(weights, key=weights.count)
        alike = {i: info[NAME] for i, info in scored.items() if info.get(WEIGHTS) == common}
        if len(alike) < len(images):
            logger.info(
                f"{NAME}: chosen among {len(alike)} of {len(images)} unlabelled images; the others "
                "have no score of the same weights"
            )
        chosen = max(sorted(alike), key=alike.__getitem__)
        return {"id": chosen, "weight": alike[chosen]}


def _why_none(infos: Iterable[Mapping[str, Any]]) -> str:
    reasons = [info.get(FAILED) for info in infos]
    if all(reasons):
        return "\n".join(
            ["the unlabelled cases that are left get no score:", *dict.fromkeys(reasons)]
        )
    return f"no unlabelled case has a score yet. Run the scoring method {NAME} first."
