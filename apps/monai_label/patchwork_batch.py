"""Segmentations of many images, of which one that fails stops no other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

logger = logging.getLogger(__name__)

FAILED = "failed"


class CarefulBatch(BatchInferTask):
    """MONAI Label's batch inference: what is wrong with an image is that image's answer."""

    def __call__(
        self, request: dict[str, Any], datastore: Datastore, infer: Callable[..., dict[str, Any]]
    ) -> dict[str, Any]:
        """Segment the images; return each one's answer, {"failed": reason} where there is none.

        A prediction never replaces a label that somebody submitted.
        """
        if request.get("multi_gpu", True) and torch.cuda.device_count() == 0:
            # MONAI Label shares the images out among all GPUs, and divides by their number.
            request = {**request, "multi_gpu": False}

        def try_one(one: dict[str, Any], store: Datastore) -> dict[str, Any]:
            image = one["image"]
            if one.get("label_tag") == DefaultLabelTag.FINAL and image in labelled:
                return {FAILED: f"image {image} has a submitted label, which stays"}
            try:
                return infer(one, store)
            # Whatever is wrong with one image is no reason to leave the others without an answer.
            except Exception as error:
                reason = str(getattr(error, "detail", None) or error) or type(error).__name__
                logger.error(f"no segmentation of {image}, the others go on: {reason}")
                return {FAILED: reason}

        labelled = set(datastore.get_labeled_images())
        answers = super().__call__(request, datastore, try_one)
        failed = sorted(image for image, answer in answers.items() if FAILED in (answer or {}))
        if failed:
            logger.warning(
                f"{len(answers) - len(failed)} of {len(answers)} images were segmented; "
                f"not {', '.join(failed)}"
            )
        return answers
