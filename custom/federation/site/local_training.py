"""One stage at one site: the bundle's own config, run a round at a time."""

from __future__ import annotations

import logging
import re
import resource
import warnings
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from bundle.data.census import combination_counts, modality_counts
from bundle.modalities import subset_name
from bundle.training.engine import EpochSeed, epoch_seed
from bundle.training.files import check_writable
from federation.protocol.changes import MADE_WITH, check_changes, made_with
from federation.protocol.exchange import Exchange, ExchangeRules, Kind, declared_statistics
from federation.protocol.scoring import Sums, dice_sums
from federation.protocol.stages import Stage, installed_identity, read_workflow
from federation.settings import Site
from federation.site.own_state import check_own_state

logger = logging.getLogger(__name__)

_KIB_PER_MIB = 1024


class LocalTraining:
    """Trains and scores a stage's method on a site's own cases.

    Args:
        stage: which configs, how many epochs a round.
        site: where its data are.
        folder: where logs go.

    Raises:
        ValueError: the config has no `exchange`, or declares statistics that `exchange` does not
            name.
    """

    def __init__(self, stage: Stage, site: Site, folder: str | Path) -> None:
        self.stage, self.site = stage, site
        self.workflow = read_workflow(stage, self._overrides(stage, site, str(folder)))
        self.parser = self.workflow.parser
        self._adapt()
        check_writable(str(folder))
        self.workflow.initialize()
        self.modalities = list(self._get("modalities"))
        self.method: nn.Module = self._get("method")
        self.exchange = read_exchange(self.workflow, self.method)

    @staticmethod
    def _overrides(stage: Stage, site: Site, folder: str) -> dict[str, Any]:
        ids = dict(site.ids)
        if "device" in ids:
            ids["device"] = torch.device(ids["device"])
        return {
            **ids,
            "output_dir": folder,
            "ckpt_dir": folder,
            "max_epochs": stage.epochs,
            "pretrained_file": None,
            "validate#dataset#data": f"$@datalist.get('{stage.section}', [])",
            "validate#dataset#subsets": "all",
            "validate#handlers": [],
        }

    def _adapt(self) -> None:
        """Leave out the handlers that rounds do not have, and draw other numbers than other sites.

        The configs name these handlers: the server starts, chooses and keeps the model instead.
        """
        left_out = self.parser.get("train#not_in_rounds", ())
        handlers = self.parser["train#handlers"]
        self.parser["train#handlers"] = [h for h in handlers if h.get("_target_") not in left_out]
        own = zlib.crc32(self.site.name.encode())
        self.parser["epoch_seed"] = epoch_seed(int(self.parser["seed"]), own)

    def _get(self, name: str) -> Any:
        return self.parser.get_parsed_content(name)

    @cached_property
    def cases(self) -> dict[str, int]:
        """How many training cases have each modality.

        Raises:
            ValueError: the site has no training case, or a case without label.
        """
        return dict(modality_counts(self._get("training_cases"), self.modalities))

    @property
    def all_cases(self) -> int:
        """How many training cases the site has."""
        return len(self._get("training_cases"))

    def cases_in(self, section: str) -> int:
        """How many cases the site has in a section of its datalist."""
        return len(self._get("datalist").get(section) or ())

    @cached_property
    def engine(self) -> SupervisedTrainer:
        """The config's trainer."""
        return self._get("train#trainer")

    def load_global(self, received: Mapping[str, Tensor]) -> None:
        """Load the global state: all that is shared of it, or nothing.

        Raises:
            ValueError: they are damaged or another method's; the site's model is as it was.
        """
        state = self.exchange.take(self.method.state_dict(), received, self.cases)
        self.method.load_state_dict(state)
        self.method.after_global_update()
        self._freeze_what_is_lacking()

    def _freeze_what_is_lacking(self) -> None:
        """Do not train the encoders of modalities that the site lacks.

        A completed case goes through them too, and would teach them what rebuilt scans look like.
        """
        for key, value in self.method.named_parameters():
            served = self.exchange.parts[key].modality
            if served is not None and not self.cases[self.modalities[served]]:
                value.requires_grad_(False)

    def countable(self, least: int) -> list[int]:
        """List the training cases that may be part of a sum that leaves the site.

        Sums are kept for each pair of modalities. Subtracted from each other they tell of the cases
        of one combination alone, so that each combination needs enough cases.

        Args:
            least: how many cases must have the same modalities.

        Returns:
            Indices into the training cases, rising.
        """
        cases = self._get("training_cases")
        counts = combination_counts(cases, self.modalities)
        names = (subset_name(item["image"], self.modalities) for item in cases)
        return [index for index, name in enumerate(names) if counts[name] >= least]

    def count_statistics(self, among: Sequence[int]) -> bool:
        """Set the additive statistics to those of some of this site's cases alone.

        Args:
            among: indices into the training cases.

        Returns:
            True = done; False = the method has no such statistics.
        """
        self.method.load_state_dict(self.exchange.empty(self.method.state_dict()))
        self.engine.state.epoch = 0
        for handler in self._get("train#handlers"):
            if isinstance(handler, EpochSeed):
                handler(self.engine)
        loader = self.engine.data_loader
        if len(among) < self.all_cases:
            loader = DataLoader(
                Subset(loader.dataset, among),
                batch_size=loader.batch_size,
                num_workers=loader.num_workers,
                collate_fn=loader.collate_fn,
            )
        return bool(self.method.add_statistics(loader, self.engine.state.device))

    def train(self, number: int) -> None:
        """Train round `number`, counted from 0: the stage's epochs from there on.

        Raises:
            FloatingPointError: loss or gradient became NaN or infinite.
        """
        engine, epochs = self.engine, self.stage.local_epochs
        state = engine.state
        state.epoch, state.max_epochs = number * epochs, (number + 1) * epochs
        state.iteration = state.epoch * state.epoch_length
        self._catch_up(state.epoch)
        engine.run()

    def _catch_up(self, epoch: int) -> None:
        """Step the learning rate to this epoch's.

        A site that missed rounds is behind, and the scheduler of a new process stands at 0.
        """
        scheduler = self._get("lr_scheduler")
        with warnings.catch_warnings():
            # A scheduler warns if the optimiser was not stepped before; another process did that.
            warnings.simplefilter("ignore", UserWarning)
            while scheduler.last_epoch < epoch:
                scheduler.step()

    def score(self) -> Sums:
        """Score the method's network on the site's held-out cases, on every subset they form.

        Returns:
            Sums of Dice without names of cases; {} = there are no such cases.
        """
        if not len(self._get("validate#dataset")):
            return {}
        self._get("validate#evaluator").run()
        return dice_sums(self._get("validate#key_metric#mean_dice").rows)

    def own_state(self) -> dict[str, Any]:
        """Return what stays at the site: private tensors and the optimiser's state."""
        private = self.exchange.of_kind(Kind.PRIVATE, self.method.state_dict())
        optimizer = self._get("optimizer").state_dict()
        return {"private": private, "optimizer": optimizer, MADE_WITH: self._made_with()}

    def _made_with(self) -> dict[str, Any]:
        return made_with(installed_identity(self.stage), self.parser)

    def take_up(self, content: Mapping[str, Any]) -> None:
        """Go on from what `own_state` returned: all of it, or nothing; {} changes nothing.

        Raises:
            ChangesRefused: it was made with another bundle or other settings, and the job or the
                site does not accept that.
            ValueError: it is damaged, or of another method or size.
        """
        if not content:
            return
        self._check_changes(content.get(MADE_WITH))
        own = self.method.state_dict()
        optimizer, scheduler = self._get("optimizer"), self._get("lr_scheduler")
        check_own_state(content, self.exchange.of_kind(Kind.PRIVATE, own), optimizer)
        self.method.load_state_dict({**own, **content["private"]})
        # The rates and other settings are this job's, not those of the job that is gone on with.
        settings = optimizer.state_dict()["param_groups"]
        moments = content["optimizer"]["state"]
        optimizer.load_state_dict({"state": moments, "param_groups": settings})
        # A job that resumes another may have more rounds, and so another schedule.
        for group, rate in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
            group["lr"] = rate

    def _check_changes(self, before: Any) -> None:
        accepted, allowed = self.stage.accept_changes, self.site.rules.accept_changes
        for line in check_changes(before, self._made_with(), accepted, allowed):
            logger.warning(f"the site goes on with a change: {line}")


def read_exchange(workflow: ConfigWorkflow, method: nn.Module) -> Exchange:
    """Apply the config's `exchange`, the rules of what is shared, to its method.

    Raises:
        ValueError: there is none, or it leaves out statistics that the method declares, which
            would be averaged instead of added.
    """
    parser = workflow.parser
    rules = parser.get("exchange")
    if rules is None:
        raise ValueError(
            "expected 'exchange' in the stage's configs, which says what sites share, got none. "
            "Add federation.yaml to the job's configs, or the method's own overlay, such as "
            "federation_lckd.yaml."
        )
    modalities = parser.get_parsed_content("modalities")
    exchange = Exchange(ExchangeRules(modalities, **rules), method.state_dict())
    missing = [
        key
        for pattern in declared_statistics(method)
        for key, part in exchange.parts.items()
        if re.search(pattern, key) and not part.is_statistic and part.kind != Kind.PRIVATE
    ]
    if missing:
        raise ValueError(
            f"expected a rule for the statistics {missing}, got none. Name them under "
            "exchange#additive_statistics or exchange#recounted_statistics."
        )
    return exchange


def peak_memory_mib() -> int:
    """Tell the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _KIB_PER_MIB
