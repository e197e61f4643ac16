"""A folder of scans as MONAI Label lists it, with what the names of the files mean.

MONAI Label takes every volume in the folder for an image of its own. Here hidden files and labels
are none, and the images that share a prefix are one case.
"""

from __future__ import annotations

import filecmp
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from filelock import FileLock
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag
from patchwork_cases import alike, case_of, left_out_line, subfolder_line

logger = logging.getLogger(__name__)

# Marks an image that somebody sent under a name of their own: it stays, whatever it is called.
UPLOADED = "uploaded"


class Studies(LocalDatastore):
    """MONAI Label's folder of scans, which knows cases.

    Args:
        folder: the scans, side by side.
        modalities: the vocabulary.
        endings: of file names, see `bundle.data.filenames.file_endings`.
        options: see LocalDatastore.
    """

    def __init__(
        self, folder: str, modalities: Sequence[str], endings: Mapping[str, str], **options: Any
    ) -> None:
        self.folder = Path(folder)
        self.modalities, self.endings = tuple(modalities), dict(endings)
        self._left_out: dict[str, str] = {}
        self._alike: set[str] = set()
        # Several processes write the list: a label that one of them saved must outlive the others.
        self._writers = FileLock(self.folder / ".patchwork.lock")
        self.folder.mkdir(parents=True, exist_ok=True)
        super().__init__(str(folder), **options)
        if line := subfolder_line(self.folder, self._datastore.labels_dir):
            logger.warning(line)

    def why_no_image(self, file: str) -> str | None:
        """Say why a file of the folder is no image; None = it is one."""
        from bundle.data.filenames import is_volume, split_name

        if file.startswith("."):
            return "hidden"
        if not is_volume(file):
            return "no NIfTI file"
        role = split_name(file, self.endings)[1]
        if role in self.modalities:
            return None
        if role is not None:
            return "none of the modalities" if role == "other" else f"a {role}"
        return None if self._is_4d(file) else "its name tells no modality"

    def case_of(self, image: str) -> str:
        """Return the case that an image belongs to: what stands before the modality."""
        return case_of(image, self.endings)

    def file_states(self, images: Iterable[str]) -> list[list[Any]]:
        """List path, bytes and time of the images' files; others as soon as one is replaced."""
        from bundle.data.check_cases import file_state

        paths = [Path(self.get_image_uri(image)) for image in sorted(images)]
        return [file_state(path) if path.is_file() else [str(path)] for path in paths]

    def get_image_uri(self, image_id: str) -> str:
        """Return the image's path in the folder: where a link leads, its siblings are not."""
        found = self._datastore.objects.get(image_id)
        if found is None:
            return ""
        return str(self._path(self._datastore.image_path(), image_id, found.image.ext))

    def list_images(self) -> list[str]:
        """List the images, as the list on disk has them now."""
        self._init_from_datastore_file()
        return super().list_images()

    def get_unlabeled_images(self, label_tag: Any = None, labels: Any = None) -> list[str]:
        """List the images of the cases of which no image is labelled."""
        self._init_from_datastore_file()
        done = {self.case_of(image) for image in self.get_labeled_images()}
        images = super().get_unlabeled_images(label_tag, labels)
        return [image for image in images if self.case_of(image) not in done]

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """List what training reads: each labelled case once, with the label submitted last."""
        self._init_from_datastore_file()
        chosen: dict[str, str] = {}
        for image in sorted(self.get_labeled_images(), key=self._label_time):
            case = self.case_of(image)
            if case in chosen:
                logger.warning(
                    f"case {case} has two labels, of {chosen[case]} and of {image}: "
                    f"training takes that of {image}, submitted last"
                )
            chosen[case] = image
        return [self._item(image, full_path) for image in chosen.values()]

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Store a scan that somebody sent; it never replaces another one.

        Raises:
            HTTPException: 422, a name that leads out of the folder; 409, another scan is there.
        """
        ext = self._to_id(os.path.basename(image_filename))[1]
        image_id = image_id or self._to_id(os.path.basename(image_filename))[0]
        _check_plain("image", image_id)
        with self._writing():
            target = self._path(self._datastore.image_path(), image_id, ext)
            same = target.exists() and filecmp.cmp(image_filename, target, shallow=False)
            if target.exists() and not same:
                raise HTTPException(
                    status_code=409,
                    detail=f"image {image_id}: another file is stored under this name, and stays. "
                    "Send yours under another name, or remove that one first.",
                )
            if same and image_id in self._datastore.objects:
                return image_id
            info = {**(image_info or {}), UPLOADED: True}
            return super().add_image(image_id, image_filename, info)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Store an image's label.

        Raises:
            HTTPException: 422, a tag that leads out of the folder, or a label on another voxel
                grid than the image: it is another case's.
        """
        _check_plain("tag", str(getattr(label_tag, "value", label_tag)))
        with self._writing():
            if image_id in self._datastore.objects:
                self._check_grid(image_id, Path(label_filename))
            return super().save_label(image_id, label_filename, label_tag, label_info)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Note something of an image."""
        with self._writing():
            super().update_image_info(image_id, info)

    def _reconcile_datastore(self) -> None:
        with self._writing():
            super()._reconcile_datastore()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._writers:
            if self._writers.lock_counter == 1:
                # Times of files are too coarse to tell two writers of one moment apart.
                self._config_ts = 0
                self._init_from_datastore_file()
            yield

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        before = self._config_ts
        super()._init_from_datastore_file(throw_exception)
        if self._config_ts != before:
            self._forget_strangers()

    def _forget_strangers(self) -> None:
        """Take out of the list what an app that knows no names put there; no file is touched."""
        for image_id, found in list(self._datastore.objects.items()):
            file = self._filename(image_id, found.image.ext)
            why = self.why_no_image(file)
            theirs = found.image.info.get(UPLOADED) or found.labels.get(DefaultLabelTag.FINAL)
            if why is not None and not (theirs and not file.startswith(".")):
                del self._datastore.objects[image_id]

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        found = super()._list_files(path, patterns)
        if os.path.realpath(path) != os.path.realpath(self._datastore.image_path()):
            return found
        why = {file: self.why_no_image(file) for file in found if (Path(path) / file).is_file()}
        images = {file: found[file] for file, reason in why.items() if reason is None}
        self._say({f: reason for f, reason in why.items() if reason is not None}, images)
        return images

    def _say(self, left_out: dict[str, str], images: Iterable[str]) -> None:
        """Log what is strange about the folder, once."""
        if left_out and left_out != self._left_out:
            logger.warning(left_out_line(self.folder, left_out, self.modalities))
        twins = alike(self.case_of(self._to_id(file)[0]) for file in images)
        if twins - self._alike:
            logger.warning(
                f"{self.folder}: {', '.join(sorted(twins))} differ in upper and lower case alone, "
                "and are shown as cases of their own. Name the files of one patient alike."
            )
        self._left_out, self._alike = left_out, twins

    def _is_4d(self, file: str) -> bool:
        from bundle.data.volumes import CaseError, count_volumes

        try:
            return count_volumes(self.folder / file, file) == len(self.modalities)
        except CaseError:
            return False

    def _check_grid(self, image_id: str, label: Path) -> None:
        from bundle.data.volumes import CaseError, check_grids, count_volumes, read_grid

        image, case = Path(self.get_image_uri(image_id)), self.case_of(image_id)
        if not label.name.lower().endswith((".nii", ".nii.gz")):
            return
        try:
            if count_volumes(image, case) == 1:
                grids = {image: read_grid(image, case), label: read_grid(label, case)}
                check_grids(grids, case)
        except CaseError as error:
            raise HTTPException(
                status_code=422,
                detail=f"this is no label of image {image_id}, and was not stored: {error}",
            ) from error

    def _item(self, image: str, full_path: bool) -> dict[str, str]:
        tag = DefaultLabelTag.FINAL
        label = self._path(
            self._datastore.label_path(tag), image, self._datastore.objects[image].labels[tag].ext
        )
        paths = {"image": Path(self.get_image_uri(image)), "label": label}
        root = os.path.abspath(self.folder)
        return {
            key: str(path) if full_path else os.path.relpath(path, root)
            for key, path in paths.items()
        }

    def _label_time(self, image: str) -> tuple[float, str]:
        label = self._datastore.objects[image].labels[DefaultLabelTag.FINAL]
        return float(label.info.get("ts", 0)), image

    def _path(self, folder: str, name: str, ext: str) -> Path:
        return Path(os.path.abspath(os.path.join(folder, self._filename(name, ext))))


def _check_plain(what: str, name: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise HTTPException(
            status_code=422,
            detail=f"{what}: expected a name without a path, got {name!r}. Send another one.",
        )
