"""A stage of a job: which of the bundle's own configs train, for how many rounds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

import bundle
from bundle.data.datalist import SECTIONS
from federation.protocol.identity import (
    CONFIGS,
    Identity,
    check_same,
    check_unchanged,
    identify,
    read_identity,
)

_CONFIG_NAME = re.compile(r"\w+\.(json|yaml)")
_STAGE_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,63}", re.ASCII)
# Not _target_ and its kin, which name what is run.
_ID = re.compile(r"[A-Za-z0-9]\w*((#|::)[A-Za-z0-9]\w*)*")
# All that a job may set: what is learnt, and how. Folders, files, checks, devices and what MONAI's
# workflow itself takes (such as where to report to) are the site's own. Regions and label values
# are the installed configs': they decide which cases are bad.
JOB_SETTINGS = (
    *("modalities", "spacing", "roi_size", "window_batch", "seed"),
    *("filters", "blocks_down", "deep_supervision", "hypernetwork", "rescale", "encoders"),
    *("batch_size", "samples_per_case", "epoch_samples", "learning_rate", "prompt_source"),
    *("data_side", "model_side"),
    *("masking", "patch", "descriptor_patch", "distribution"),
    *("marginal_weight", "conditional_weight"),
    *("warm_up_epochs", "election_interval", "election_required", "distillation_weight"),
    *("teaching", "skips"),
    *("subsets_per_step", "decouple", "reduction"),
    *("specialist_subset", "train#dataloader#batch_size", "lr_scheduler#total_iters"),
    *("exchange#additive_statistics", "exchange#private_parameters", "channels_last"),
)
# What MONAI reads as an expression, a reference or another file.
_MEANINGFUL = ("$", "@", "%")


@dataclass(frozen=True)
class Stage:
    """One training of a job.

    A job names config files of the bundle that is installed at the site, and sets their ids to
    plain values. It cannot bring an expression, a reference or a class, so that a site runs only
    what is installed there.

    Args:
        task: name of the task that asks for it, such as `train`. (NVFlare takes a dict with a
            `name` for a component.)
        configs: names of files in configs/, merged from left to right.
        rounds: how many rounds it lasts; 0 = it is only evaluated.
        local_epochs: a site's passes over its data in each round.
        settings: ids of `JOB_SETTINGS` and their plain values, as a mapping or as pairs.
        section: the section of a site's datalist on whose cases it scores the global model.
        identity: the bundle that the job was made with, `Identity` as a dict; None = the one that
            the server has. Every site must have it too.
        accept_changes: True = a state that was made with other settings or another bundle is taken
            up all the same, see `federation.protocol.changes`.

    Raises:
        ValueError: a malformed name, a number of rounds below 0 or of epochs below 1, an id that
            is not a job's to set, or a value that MONAI would run.
    """

    task: str
    configs: Sequence[str]
    rounds: int
    local_epochs: int = 1
    settings: Mapping[str, Any] | Sequence[tuple[str, Any]] = field(default_factory=dict)
    section: str = "validation"
    identity: Mapping[str, str] | None = None
    accept_changes: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", dict(self.settings))
        if not _STAGE_NAME.fullmatch(self.task):
            raise ValueError(f"stage: expected a name such as 'train', got {self.task!r}")
        wrong = [name for name in self.configs if not _CONFIG_NAME.fullmatch(str(name))]
        if wrong or not self.configs:
            raise ValueError(
                f"stage {self.task}: expected names of files in {CONFIGS}/, such as 'train.json', "
                f"got {wrong or 'none'}"
            )
        if self.section not in SECTIONS:
            raise ValueError(
                f"stage {self.task}: expected a section of {list(SECTIONS)}, got {self.section!r}"
            )
        if self.rounds < 0 or self.local_epochs < 1:
            raise ValueError(
                f"stage {self.task}: expected rounds of at least 0 and local_epochs of at least 1, "
                f"got {self.rounds} and {self.local_epochs}"
            )
        for key, value in self.settings.items():
            if not _ID.fullmatch(str(key)):
                raise ValueError(f"stage {self.task}: expected an id of the configs, got {key!r}")
            if str(key).replace("::", "#") not in JOB_SETTINGS:
                raise ValueError(
                    f"stage {self.task}: expected a setting that a job may have, got {key!r}. Put "
                    "it into a config of the bundle, which every site installs for itself, or into "
                    f"a site's own settings. A job may set {', '.join(JOB_SETTINGS)}."
                )
            check_plain(value, f"stage {self.task}, setting {key}")

    @property
    def epochs(self) -> int:
        """How many passes a site makes in all; the learning rate falls over them."""
        return max(1, self.rounds * self.local_epochs)

    def to_dict(self) -> dict[str, Any]:
        """Write it as plain values, as NVFlare's configuration and the trainer's arguments do.

        Settings as pairs: `nvflare job submit` writes a job's configurations anew, and takes a key
        such as `train#trainer` for two, one in the other (NVFlare 2.9).
        """
        settings = [[key, value] for key, value in self.settings.items()]
        written = {**asdict(self), "configs": list(self.configs), "settings": settings}
        if self.identity is None:
            del written["identity"]
        if not self.accept_changes:
            del written["accept_changes"]
        return written


def read_stages(values: Sequence[Mapping[str, Any]]) -> dict[str, Stage]:
    """Read stages as `Stage.to_dict` wrote them, by name.

    Raises:
        ValueError: as in `Stage`, or a name twice.
        TypeError: an entry has other fields.
    """
    stages = [Stage(**value) for value in values]
    if len({stage.task for stage in stages}) < len(stages):
        raise ValueError(f"expected stages of different names, got {[s.task for s in stages]}")
    return {stage.task: stage for stage in stages}


def installed_identity(stage: Stage) -> Identity:
    """Identify the bundle that this process has loaded, as this stage uses it.

    Raises:
        ValueError: the job was made with another one; with the hashes of both.
        FileNotFoundError: as in `identify`.
    """
    found = identify(stage.configs)
    if stage.identity is not None:
        check_same(read_identity(stage.identity), found)
    return found


def read_workflow(stage: Stage, overrides: Mapping[str, Any]) -> ConfigWorkflow:
    """Read a stage's configs; nothing in them is built yet.

    Args:
        stage: which configs.
        overrides: ids and values that come last: this program's or this site's, not the job's.

    Raises:
        FileNotFoundError: this installation lacks one of the configs.
        ValueError: one of them has changed since this process started.
    """
    check_unchanged(stage.configs)
    folder = Path(bundle.ROOT) / CONFIGS
    return ConfigWorkflow(
        config_file=[str(folder / name) for name in stage.configs],
        meta_file=str(folder / "metadata.json"),
        # NVFlare has set up this process's logging.
        logging_file=False,
        workflow_type="train",
        **{**stage.settings, **overrides},
    )


def check_name(value: Any, what: str) -> str:
    """Refuse a name that could lead out of the folder of that name.

    Args:
        value: a job's text.
        what: whose name it is, for the message.

    Raises:
        ValueError: it is no name.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(
            f"{what}: expected a name of letters, digits, _ and -, at most 64 long, got "
            f"{value!r:.100}. It names a folder: write the job with another one."
        )
    return value


def check_plain(value: Any, whose: str) -> None:
    """Refuse a value that MONAI would run or follow instead of taking it as it is.

    Raises:
        ValueError: naming it; the message starts with `whose`.
    """
    if isinstance(value, list | tuple):
        for entry in value:
            check_plain(entry, whose)
    elif isinstance(value, str):
        if value.lstrip().startswith(_MEANINGFUL):
            raise ValueError(
                f"{whose}: expected a plain value, got {value!r}, which MONAI would run. Put it "
                "into a config of the bundle, which every site installs for itself."
            )
    elif value is not None and not isinstance(value, bool | int | float):
        raise ValueError(
            f"{whose}: expected a number, a text, true, false, null or a list of these, got "
            f"{value!r:.100}"
        )
