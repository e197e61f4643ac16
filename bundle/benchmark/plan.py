"""What a benchmark is made of: runs, their trainings, and the grid that holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Group = Literal["main", "specialist", "ablation", "federation"]

# The groups of methods that stand beside the reference, and what was made equal.
COMPARED: Mapping[Group, str] = {"main": "equal work"}
SPECIALISTS = "specialists"

# Methods that have no overlay of their own, but are another one's with something changed.
GMD_NOT_DECOUPLED = "GMD, not decoupled"
PCGRAD_UNET = "PCGrad-mean, plain U-Net"

# What the training cases of a run lack: a ratio, or in words a rate for each modality.
Missing = float | str


# Voxels of the phantom with real anatomy: coarse, so that a training is minutes.
ANATOMICAL_MM = (3.0, 3.0, 3.0)


@dataclass(frozen=True)
class Phantom:
    """The data of a run: the phantom, the same for every seed of a run.

    Attributes:
        training: cases to train on; they get gaps.
        testing: cases to test on; they stay complete.
        size: edge of the cube of a simple one, voxels of 2 mm; None = real anatomy at 3 mm.
        validation: complete cases held out, for methods that choose teachers on them; others never
            read them.
        seed: of the cases; None = 0. What is chosen is chosen on those of one seed, and told of
            another's.
    """

    training: int = 24
    testing: int = 32
    size: int | None = None
    validation: int = 4
    seed: int | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many cases each section of the datalist has."""
        return {
            "training": self.training,
            "validation": self.validation,
            "testing": self.testing,
        }

    @property
    def anatomy(self) -> str:
        """Which anatomy `write_phantom` is to give them."""
        return "icbm152" if self.size is None else "simple"


@dataclass(frozen=True)
class OwnCases:
    """The data of a run: cases of one's own, whose datalist stays where it is.

    Attributes:
        training: cases to train on; they get gaps.
        testing: cases to test on; they stay as they are, and every modality must be there.
        digest: of the datalist's cases, so that results of other data do not pass for these.
    """

    training: int
    testing: int
    digest: str


@dataclass(frozen=True)
class Training:
    """One training in one place.

    Attributes:
        configs: names of files in configs/, each overriding what came before.
        epochs: how many; None = as many as the budget pays for.
        overrides: further ids of the configs and their values, which come last.
        budget: the work that it may do, in steps of a plain U-Net on a batch of the same size;
            None = the epochs are given.
    """

    configs: tuple[str, ...]
    epochs: int | None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    budget: float | None = None


@dataclass(frozen=True)
class Federation:
    """One training over several sites, made by `python -m federation.simulate`.

    Attributes:
        options: of that command, those for data, seed, settings and output left out.
        rounds: with training in them, after any pre-training.
        pretrain_rounds: rounds of pre-training with training in them, for a method that has one.
        sites: their names and modalities, as `python -m bundle partition --plan` takes them.
        settings: further ids of the configs and their values.
    """

    options: Mapping[str, Any]
    rounds: int
    pretrain_rounds: int
    sites: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One or more trainings one after the other, in one folder, then an evaluation.

    Attributes:
        name: unique and fit to be a file's name.
        label: what is compared, such as a method's name.
        group: which table it belongs to. "main": the same work for all; "specialist": one subset;
            "ablation": the reference with something changed; "federation": sites that train
            together, or what is compared with that.
        ratio: chance, 0 to 1, that a modality of a training case is missing; the mean of `rates`
            where there are any.
        seed: of the absence, the weights and the order of the cases; not of the data.
        stages: the trainings; () for a federated run.
        subsets: what to evaluate, such as ("t1+t2",); None = all.
        needs: modalities that some training case must have; without one the run is not possible.
        data: what is trained and tested on.
        rates: that chance for each modality in vocabulary order; None = `ratio` for all.
        whole: the label of what an ablation is changed from; None = the grid's reference.
        federation: the training over several sites; None = the run has `stages`.
    """

    name: str
    label: str
    group: Group
    ratio: float
    seed: int
    stages: tuple[Training, ...]
    subsets: tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()
    data: Phantom | OwnCases = Phantom()
    rates: tuple[float, ...] | None = None
    whole: str | None = None
    federation: Federation | None = None

    @property
    def missing(self) -> Missing:
        """What the training cases lack: `ratio`, or `rates` such as "0.2/0.4/0.6/0.8"."""
        return self.ratio if self.rates is None else "/".join(f"{rate:g}" for rate in self.rates)


@dataclass(frozen=True)
class Change:
    """Two compared methods that differ in one thing.

    Attributes:
        label: the one with the change.
        whole: the one without.
        name: what the change is called.
    """

    label: str
    whole: str
    name: str


@dataclass(frozen=True)
class RunGrid:
    """The runs that one report is about.

    Attributes:
        name: the word on the command line.
        reference: the label that all others are compared with.
        baseline: the label from which the gap to the specialists is measured.
        runs: in the order in which they are to start.
        notes: sentences for the report on what is not there, and why.
        centre: the missing ratio at which all methods stand in one table; None = no such table.
        changes: compared methods that stand among the ablations as well, at the centre.
        folder: where the report goes, within the folder of the records; None = one of its name.
        at_once: the most runs at a time; None = as many as there are workers.
        is_profile: True = its reference is compared with the published profile, at one ratio.

    Raises:
        ValueError: two runs of one name, or changes without a centre.
    """

    name: str
    reference: str
    baseline: str
    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()
    centre: float | None = None
    changes: tuple[Change, ...] = ()
    folder: str | None = None
    at_once: int | None = None
    is_profile: bool = False

    def __post_init__(self) -> None:
        if self.changes and self.centre is None:
            raise ValueError(
                f"grid {self.name}: expected a centre, at which its changes are compared, got none"
            )
        seen: set[str] = set()
        for run in self.runs:
            if run.name in seen:
                raise ValueError(f"grid {self.name}: expected each name once, got {run.name} twice")
            seen.add(run.name)

    def digests(self) -> dict[str, str]:
        """Hash every run's description.

        Returns:
            Run name -> 16 hexadecimal digits; equal as long as the same would be run.
        """
        # Not above: it loads PyTorch, and a run's record names what it loads.
        from bundle.phantom.parameters import VERSIONS

        digests = {}
        for run in self.runs:
            # A former plan named the runs that a run waits for, here.
            described = _stated({**asdict(run), "data": _stated(asdict(run.data))})
            if isinstance(run.data, Phantom) and run.data.size is None:
                described["phantom_version"] = VERSIONS[run.data.anatomy]
            text = json.dumps([described, []], sort_keys=True)
            digests[run.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return digests


def _stated(description: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is None, so that a field that comes later does not change what was run."""
    return {name: value for name, value in description.items() if value is not None}
