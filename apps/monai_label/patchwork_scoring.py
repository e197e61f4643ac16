"""Scores of unlabelled cases: how much their segmentations from fewer modalities disagree."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.tasks.infer.basic_infer import CallBackTypes
from monailabel.tasks.infer.bundle import BundleInferTask
from patchwork_cases import by_case, open_images, tells
from patchwork_studies import Studies
from patchwork_turns import Turns, step_back

logger = logging.getLogger(__name__)

NAME = "disagreement"
# Beside the score: which weights and which files gave it, and why there is none.
WEIGHTS, FILES, FAILED = f"{NAME}_of_weights", f"{NAME}_of_files", f"{NAME}_failed"
# These pass by themselves, so the case is tried again at the next call.
PASSING = (MemoryError, OSError, torch.cuda.OutOfMemoryError)


@dataclass(frozen=True)
class Source:
    """What a score was computed from.

    Attributes:
        case: its name.
        images: the datastore's images of the case.
        weights, files: hashes of the states of the files; others as soon as one is written anew.
    """

    case: str
    images: tuple[str, ...]
    weights: str
    files: str


class Disagreement(ScoringMethod):
    """Score every unlabelled case: how far its segmentations from fewer modalities lie apart.

    Args:
        task: MONAI Label's inference with the bundle.
        endings: of file names, and the modalities that they mean.
        turns: who comes first.
    """

    def __init__(self, task: BundleInferTask, endings: Mapping[str, str], turns: Turns) -> None:
        super().__init__("How far the segmentations from fewer modalities lie apart")
        self.task = task
        self.endings = dict(endings)
        self.turns = turns

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score the cases that these weights have not scored; one that fails stops no other.

        After each case the list is made anew: one that was labelled meanwhile is left out, and new
        weights or files bring a case back.

        Args:
            request: `device` and `modality`, as for an inference; both may be absent.
            datastore: the images; gains the scores.

        Returns:
            `total` cases = `skipped`, which had a score, + `executed` + the length of `failed`,
            which names the cases without one and why.
        """
        step_back()
        begin, tried, executed = time.monotonic(), set(), set()
        failed: dict[str, str] = {}
        modality = request.get("modality")
        count = len(self.open_sources(datastore, modality))
        logger.info(f"{NAME}: {count} cases to score; whoever wants a segmentation comes first")
        while todo := [s for s in self.open_sources(datastore, modality) if s not in tried]:
            self.turns.wait_for_readers()
            source = todo[0]
            tried.add(source)
            reason = self._score_and_note(source, request, datastore)
            executed.discard(source.case)
            failed.pop(source.case, None)
            if reason is None:
                executed.add(source.case)
            else:
                failed[source.case] = reason
            done, seconds = len(tried), time.monotonic() - begin
            left = seconds / done * (len(todo) - 1)
            logger.info(
                f"{NAME}: {done} of {done + len(todo) - 1} cases done in {seconds:.0f} s, "
                f"about {left:.0f} s left"
            )
        return self._summary(executed, failed, self.sources(datastore, modality), datastore)

    def score(self, path: str, device: str | None = None, modality: str | None = None) -> float:
        """Return the disagreement, summed over the case, per voxel that is probably tumour.

        Args:
            path: one of the case's files.
            device: where to compute; None = MONAI Label's choice.
            modality: what a file is whose name does not tell.

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

        request = {"image": path, "logging": "error", "skip_writer": True}
        request |= {"device": device} if device else {}
        request |= {"modality": modality} if modality else {}
        with torch.no_grad():
            self.task(request, callbacks={CallBackTypes.INFERER: compare})
        return found[0]

    def sources(self, datastore: Datastore, modality: str | None = None) -> list[Source]:
        """List the unlabelled cases, by name, and what a score of them would be computed from.

        Args:
            datastore: the images. Those of a server that hands over one series at a time are
                fetched to be scored, so one whose name tells no modality is left out.
            modality: what such a series is.
        """
        weights = self._weights()
        images = open_images(datastore, self.endings)
        if isinstance(datastore, Studies):
            states = datastore.file_states
        else:
            states = list
            images = [image for image in images if modality or tells(image, self.endings)]
        cases = by_case(images, self.endings)
        return [
            Source(case, tuple(images), weights, _digest(states(images)))
            for case, images in sorted(cases.items())
        ]

    def open_sources(self, datastore: Datastore, modality: str | None = None) -> list[Source]:
        """List those that have neither a score from this source nor a reason why there is none."""
        return [s for s in self.sources(datastore, modality) if not _is_settled(s, datastore)]

    def progress(self, datastore: Datastore) -> dict[str, Any]:
        """Say how many of the unlabelled cases have a score, and which cannot get one."""
        sources = self.sources(datastore)
        settled = [source for source in sources if _is_settled(source, datastore)]
        failed = _failures(settled, datastore)
        return {"scored": len(settled) - len(failed), "of": len(sources), "failed": failed}

    def _score_and_note(
        self, source: Source, request: Mapping[str, Any], datastore: Datastore
    ) -> str | None:
        """Score a case; return None, or why there is no score."""
        note: dict[str, Any] = {WEIGHTS: source.weights, FILES: source.files}
        try:
            path = datastore.get_image_uri(source.images[0])
            modality = request.get("modality")
            score = self.score(path, request.get("device"), modality)
            logger.info(f"{NAME} of {source.case}: {score:.4f}")
            reason, note = None, note | {NAME: score, FAILED: None}
        # Whatever is wrong with one case is no reason to leave the others without a score.
        except Exception as error:
            reason = str(getattr(error, "detail", None) or error) or type(error).__name__
            logger.error(f"{NAME}: case {source.case} gets no score, the others do: {reason}")
            note |= {NAME: None, FAILED: None if isinstance(error, PASSING) else reason}
        if self._weights() != source.weights:
            logger.info(f"{NAME}: the weights changed while {source.case} was scored: once more")
            return reason
        for image in source.images:
            try:
                datastore.update_image_info(image, note)
            except ImageNotFoundException:
                # Removed meanwhile, or a series that was never fetched.
                logger.info(f"{NAME}: image {image} is not in the datastore: nothing is noted")
        return reason

    def _summary(
        self,
        executed: set[str],
        failed: dict[str, str],
        sources: Iterable[Source],
        datastore: Datastore,
    ) -> dict[str, Any]:
        settled = [s for s in sources if s.case not in executed | set(failed)]
        known = _failures(settled, datastore)
        listed = [{"case": case, "reason": reason} for case, reason in failed.items()] + known
        listed.sort(key=lambda entry: entry["case"])
        skipped = len(settled) - len(known)
        if listed:
            names = ", ".join(entry["case"] for entry in listed)
            logger.warning(
                f"{NAME}: no score for {names}. A case whose files cannot be read is tried again "
                "when one of them has changed."
            )
        total = skipped + len(executed) + len(listed)
        return {"total": total, "skipped": skipped, "executed": len(executed), "failed": listed}

    def _weights(self) -> str:
        path = self.task.get_path()
        stat = Path(path).stat() if path else None
        return _digest([path, stat.st_size, stat.st_mtime_ns] if stat else None)


def _is_settled(source: Source, datastore: Datastore) -> bool:
    infos = [datastore.get_image_info(image) for image in source.images]
    of_these = (source.weights, source.files)
    return all(
        (info.get(WEIGHTS), info.get(FILES)) == of_these
        and (info.get(NAME) is not None or info.get(FAILED) is not None)
        for info in infos
    )


def _failures(sources: Iterable[Source], datastore: Datastore) -> list[dict[str, str]]:
    reasons = {s.case: datastore.get_image_info(s.images[0]).get(FAILED) for s in sources}
    return [{"case": case, "reason": reason} for case, reason in reasons.items() if reason]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]
