"""What a training was made with: compared when it is resumed, and written into its state.

**What must stay the same**, because the numbers in a state would mean something else:

- `modalities` and `regions`, in their order: they are the channels.
- `label_aliases`, `spacing`, the deterministic transforms: they say what is in a voxel.
- `network_def`, `method`, `criteria`, `made_with` (the prompts): what is trained, and for what.
- `roi_size`, `samples_per_case`, the random transforms: which windows are drawn, and how they are
  changed. Running means and a teacher follow what was drawn before. How subsets are drawn is the
  method's.
- the kind of optimiser: its moments mean nothing to another one.

**What may change**, takes effect and is said: the optimiser's numbers and the learning rate's curve
(`bundle.training.schedule`), `max_epochs`, what is computed from it, and what `MAY_CHANGE` lists.
A larger batch, another seed or mixed precision change the way from here on, not what was reached.

**What is not compared**: folders, files, the device and the cache, which change no number. Cases
that come or go are said: more data are a good reason to go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.training.current_config import current_parser
from bundle.training.made_with import depends_on, leaves_of, resolve

MUST_STAY = (
    *("modalities", "regions", "label_aliases", "spacing", "roi_size", "samples_per_case"),
    *("network_def", "method", "criteria", "made_with", "optimizer#_target_"),
    *("train#deterministic_transforms", "train#random_transforms", "train#preprocessing"),
)
MAY_CHANGE = (
    *("batch_size", "num_workers", "seed", "epoch_seed", "amp"),
    *("validation", "val_interval", "save_interval", "validate_subsets"),
    *("validate#preprocessing", "validate#key_metric"),
    *("train#dataloader", "train#trainer#iteration_update"),
)
# Said by the trainer and the schedule, which know better: `bundle.training.state`.
_SAID_ELSEWHERE = ("max_epochs", "learning_rate")
# Which numbers follow from these may change with them; a seed, however, draws prompts.
_PASSED_ON = {*_SAID_ELSEWHERE, *MAY_CHANGE} - {"seed", "epoch_seed"}
_PLACES = (
    *("bundle_root", "device", "dataset_dir", "datalist_file", "datalist", "output_dir"),
    *("ckpt_dir", "cache_dir", "model_file", "state_file"),
)
# Cases that a line names; the rest are counted.
_NAMED = 5


@dataclass(frozen=True)
class TrainingRecord:
    """What a training is made with.

    Attributes:
        settings: plain values by id, see `bundle.training.made_with.describe`.
        free: the ids among them that may change.
        cases: section -> case -> its scans, such as `t1+flair`.
    """

    settings: Mapping[str, Any]
    free: frozenset[str] = frozenset()
    cases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def may_change(self, name: str) -> bool:
        """True = this setting may change; one that is not set any more goes by its id."""
        return name in self.free or name.startswith(MAY_CHANGE)


def read_record(cases: Mapping[str, Sequence[Mapping[str, Any]]] | None = None) -> TrainingRecord:
    """Describe the training whose config calls this.

    Args:
        cases: section -> datalist items.

    Raises:
        RuntimeError: no config is being read.
    """
    parser = current_parser()
    if parser is None:
        raise RuntimeError("expected to be called by a config, got no parser that is at work")
    settings, free = {}, set()
    told = {f"@{name}" for name in (*MUST_STAY, *MAY_CHANGE, *_SAID_ELSEWHERE)}
    for root in (*MUST_STAY, *MAY_CHANGE):
        for name, raw in leaves_of(parser, root):
            # '@spacing' in a transform is told as `spacing`.
            if isinstance(raw, str) and raw in told:
                continue
            if depends_on(parser, raw, _PLACES):
                settings[name] = str(raw)
                continue
            settings[name] = resolve(parser, name, raw)
            if root in MAY_CHANGE or depends_on(parser, raw, _PASSED_ON):
                free.add(name)
    scans = {section: name_scans(items) for section, items in (cases or {}).items()}
    return TrainingRecord(settings, frozenset(free), scans)


def name_scans(items: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name each case's scans: 't1+flair', or the file where a host gives one alone."""
    found = {}
    for number, item in enumerate(items):
        image = item["image"]
        if isinstance(image, Mapping):
            scans = "+".join(str(name) for name, path in image.items() if path)
            found[str(item.get("case", number))] = scans
        else:
            found[str(item.get("case", Path(str(image)).name))] = "one file"
    return found


def case_changes(before: Mapping[str, Any], now: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Say, section by section, which cases came, went, or have other scans."""
    lines = []
    for section, new in now.items():
        old = before.get(section, {})
        kinds = {
            "came": [name for name in new if name not in old],
            "went": [name for name in old if name not in new],
            "have other scans": [name for name in new if old.get(name, new[name]) != new[name]],
        }
        told = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
        if told:
            lines.append(f"{section} cases: {', '.join(told)}; {len(old)} before, {len(new)} now")
    return lines


def _some(names: Sequence[str]) -> str:
    more = [] if len(names) <= _NAMED else [f"and {len(names) - _NAMED} more"]
    return ", ".join([*names[:_NAMED], *more])
