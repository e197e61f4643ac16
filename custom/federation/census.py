"""A census of the federation: which site has how many cases of what, and how they look.

Voxels are read at the sites, once; what travels are counts, and quartiles over a site's cases.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.statistics_spec import DataType, Feature, Statistics
from nvflare.app_common.app_constant import StatisticsConstants
from nvflare.app_common.executors.statistics.statistics_executor import StatisticsExecutor
from nvflare.app_common.statistics.json_stats_file_persistor import JsonStatsFileWriter
from nvflare.app_common.workflows.statistics_controller import StatisticsController
from nvflare.job_config.api import FedJob
from nvflare.recipe.spec import Recipe

import bundle
from bundle.data.case_rules import Finding
from bundle.data.census import QUARTILES, modality_counts, quartile_table, quartiles, table
from bundle.data.check_cases import CheckMemo, Checks, all_suspicions, check_cases
from bundle.data.datalist import SECTIONS, load_datalist
from bundle.data.plausibility.judge import count_by_rule
from bundle.regions import known_labels
from federation.protocol.identity import CONFIGS, check_unchanged
from federation.rules import job_name
from federation.settings import Site, find_site

CASES = "cases"
# A few people can be recognised by what they have in common. A job may ask for more, not for less.
MIN_COUNT = 5
# Where the site's installation says which modalities, regions and label values there are.
CONFIG = "train.json"
# In the job's folder at the server.
OUTPUT = "census.json"
_WHOLE = "Global"
_INTENSITY, _VOLUME, _ODD = " intensity", " ml", "odd "
_QUANTILE = StatisticsConstants.STATS_QUANTILE
# What a site may call a number; all else in its answer is left out of the table.
_NAME = re.compile(r"[\w.+-]{1,40}( intensity| ml)?|odd \w{1,40}")


class ModalityCensus(Statistics):
    """Counts a site's cases, and measures what is usual among them, for NVFlare's statistics.

    NVFlare's data sets are the sections of the datalist. Its features are the modalities, `cases`
    (all of them), "NAME intensity" (a case's median in the brain), "REGION ml" (a case's volume,
    if it has any), and "odd RULE" (cases that a rule of `bundle.data.plausibility` warns of).

    Modalities, regions and label values are those of the installed `CONFIG`. A job that chose them
    would choose which cases are bad, and two such jobs would differ by one case.

    A count leaves the site as 0 where fewer than `min_count` cases are behind it, and where it is
    short by 1 to `min_count` - 1 of a count that includes it: of 20 cases, 19 with FLAIR would tell
    of one patient without.

    Args:
        min_count: see above; at least 5, whatever is asked. No quartiles leave where the count is
            0. (NVFlare's own MinCountCleanser does not change counts.)
    """

    _always_serialize_args = ("min_count",)

    def __init__(self, min_count: int = MIN_COUNT) -> None:
        super().__init__()
        self.min_count = max(MIN_COUNT, int(min_count))
        self.modalities: list[str] = []
        self.regions: dict[str, tuple[int, ...]] = {}
        self.aliases: dict[int, int] = {}
        self.datalist: Mapping[str, Any] = {}
        self.site = Site("unknown", {})

    def initialize(self, fl_ctx: FLContext) -> None:
        """Read the site's datalist; the files that it names are read once they are asked for.

        Raises:
            ValueError: the installed code or `CONFIG` has changed since this process started, or
                the datalist is not in order.
        """
        check_unchanged([CONFIG])
        content = json.loads((Path(bundle.ROOT) / CONFIGS / CONFIG).read_text(encoding="utf-8"))
        self.modalities = list(content["modalities"])
        self.regions = {name: tuple(values) for name, values in content["regions"].items()}
        self.aliases = {int(old): new for old, new in content["label_aliases"].items()}
        app_root = fl_ctx.get_prop(FLContextKey.APP_ROOT) or "."
        self.site = find_site(fl_ctx.get_identity_name(), app_root)
        self.datalist = load_datalist(datalist_path(self.site), self.modalities)
        cases, rules = len(self.datalist.get("training", ())), self.site.rules
        # What is below it leaves as 0; infinite where the site does not take part.
        self.min_count = rules.census_minimum(job_name(fl_ctx), cases, self.min_count)

    @cached_property
    def findings(self) -> dict[str, list[Finding]]:
        """What the check knows of each section's good cases: from its memo, else measured now.

        A site whose own settings read no voxels (`check: headers` or `none`) measures nothing, nor
        one that does not take part.
        """
        if self.site.ids.get("check", "voxels") != "voxels" or math.isinf(self.min_count):
            return {section: [] for section in SECTIONS}
        checks = Checks(
            tuple(self.modalities),
            tuple(known_labels(self.regions)),
            self.aliases,
            "voxels",
            self.regions,
        )
        memo = CheckMemo(memo_path(self.site), checks)
        found = {
            section: check_cases(self.datalist.get(section, []), checks, memo, f"census {section}")
            for section in SECTIONS
        }
        memo.save()
        return {section: good for section, (good, _) in found.items()}

    def features(self) -> dict[str, list[Feature]]:
        """List what is counted or measured, by section."""
        names = [*self.modalities, CASES]
        return {
            section: [
                *(Feature(name, DataType.INT) for name in names),
                *(Feature(name, DataType.FLOAT) for name in self._measured()),
                *(Feature(name, DataType.INT) for name in self._odd(section)),
            ]
            for section in SECTIONS
        }

    def count(self, dataset_name: str, feature_name: str) -> int:
        """Count the cases of a section behind a feature; 0 = it is withheld, or there are none.

        Raises:
            KeyError: no such section or feature.
        """
        counts = self._counts[dataset_name]
        number = counts[feature_name]
        gaps = [counts[name] - number for name in self._including(feature_name)]
        telling = number < self.min_count or any(0 < gap < self.min_count for gap in gaps)
        return 0 if telling else number

    def quantiles(
        self, dataset_name: str, feature_name: str, percentiles: Sequence[float]
    ) -> dict[str, Any]:
        """Estimate the quartiles over a section's cases; none where their count is withheld.

        Args:
            dataset_name: the section.
            feature_name: as in `features`.
            percentiles: what the job asks for. It is not listened to: 0 and 1 would be single
                cases' own numbers.
        """
        values = self._values(dataset_name, feature_name)
        told = values and self.count(dataset_name, feature_name)
        return {_QUANTILE: quartiles(values) if told else {}}

    @cached_property
    def _counts(self) -> dict[str, dict[str, int]]:
        """Count by section and feature, exactly: not for others."""
        return {section: self._count(section) for section in SECTIONS}

    def _count(self, section: str) -> dict[str, int]:
        items = self.datalist.get(section, [])
        flagged = count_by_rule(all_suspicions({section: self.findings.get(section, [])}))
        return {
            CASES: len(items),
            **modality_counts(items, self.modalities),
            **{name: len(self._values(section, name)) for name in self._measured()},
            **{f"{_ODD}{rule}": count for rule, count in flagged.items()},
        }

    def _including(self, feature: str) -> list[str]:
        """Name the features whose cases include all of this one's, whatever the data are."""
        if feature == CASES:
            return []
        if feature.endswith(_INTENSITY):
            return [CASES, feature.removesuffix(_INTENSITY)]
        if not feature.endswith(_VOLUME):
            return [CASES]
        labels = set(self.regions[feature.removesuffix(_VOLUME)])
        larger = [name for name, values in self.regions.items() if labels < set(values)]
        return [CASES, *(f"{name}{_VOLUME}" for name in larger)]

    def _measured(self) -> list[str]:
        intensities = [f"{name}{_INTENSITY}" for name in self.modalities]
        return intensities + [f"{name}{_VOLUME}" for name in self.regions]

    def _values(self, section: str, feature: str) -> list[float]:
        """One number for each case that has it; [] for a feature that is only counted."""
        if feature.endswith(_INTENSITY):
            name = f"median {feature.removesuffix(_INTENSITY)}"
        elif feature.endswith(_VOLUME):
            name = f"ml {feature.removesuffix(_VOLUME)}"
        else:
            return []
        numbers = [finding.measured.numbers for finding in self.findings.get(section, [])]
        # A volume of 0 for all would say of each patient that it has no such tumour.
        return [each[name] for each in numbers if each.get(name)]

    def _odd(self, section: str) -> list[str]:
        """Name the rules that find enough odd cases to tell of."""
        found = [name for name in self._counts[section] if name.startswith(_ODD)]
        return [name for name in found if self.count(section, name)]


def datalist_path(site: Site) -> Path:
    """Return a site's datalist, by the rule of the configs.

    Raises:
        ValueError: the site's settings name neither it nor its folder.
    """
    if site.datalist is not None:
        return site.datalist
    raise ValueError(
        f"{site.name}: expected datalist_file or dataset_dir in the site's settings, got neither. "
        "Set one of them with python -m federation.kit."
    )


def memo_path(site: Site) -> Path | None:
    """Return the file where a site's trainings remember checked cases, by the rule of the configs.

    None = the site's settings say that nothing is kept.
    """
    folder = site.ids.get("cache_dir", Path(bundle.ROOT) / "cache")
    return Path(folder) / "checked.json" if folder else None


class CensusRecipe(Recipe):
    """The census as a job of NVFlare's own statistics.

    Args:
        name: of the job.
        min_count: see `ModalityCensus`.
    """

    def __init__(self, name: str, min_count: int = MIN_COUNT) -> None:
        job = FedJob(name=name, min_clients=1)
        job.job.set_app_packages(["bundle", "federation"])
        # Which quantiles is the site's decision, so none are named. (NVFlare's key for all
        # features, "*", would not survive `nvflare job submit` either.)
        controller = StatisticsController(
            {"count": {}, _QUANTILE: {}}, writer_id="writer", enable_pre_run_task=False
        )
        job.to_server(controller)
        job.to_server(JsonStatsFileWriter(OUTPUT), id="writer")
        job.to_clients(ModalityCensus(min_count), id="census")
        job.to_clients(StatisticsExecutor(generator_id="census"), tasks=["fed_stats"])
        super().__init__(job)


def census_table(path: str | Path, section: str = "training") -> str:
    """Lay out a section: counts, quartiles over the cases, and odd cases by rule.

    There is a line for each site, and one for all where numbers add up. 0 = withheld, or none, see
    `ModalityCensus`. A site that differs is marked, by the rule of `bundle.data.census.far_off`.

    Args:
        path: the JSON file that the job wrote at the server.
        section: of the datalists.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    known = {name: found for name, found in content.items() if _NAME.fullmatch(name)}
    counts = {name: _counts(found, section) for name, found in known.items()}
    plain = [n for n in known if n != CASES and not n.endswith((_INTENSITY, _VOLUME))]
    odd = [name for name in plain if name.startswith(_ODD)]
    parts = [_count_table([CASES, *(n for n in plain if n not in odd)], counts)]
    measured = {name: _quartiles(found, section) for name, found in known.items()}
    measured = {name: found for name, found in measured.items() if found}
    if measured:
        parts.append("half of a site's cases lie in (a to b); * = a site that differs")
        parts.append(quartile_table(measured))
    if odd:
        parts.append("cases that the check warns of, by rule")
        parts.append(_count_table(odd, counts))
    return "\n\n".join(parts)


def _count_table(features: Sequence[str], counts: Mapping[str, Mapping[str, int]]) -> str:
    sites = {site for name in features for site in counts.get(name, ())}
    rows = [("site", *(name.removeprefix(_ODD) for name in features))]
    rows += [
        (site, *(str(counts.get(name, {}).get(site, "-")) for name in features))
        for site in sorted(sites, key=lambda site: (site == _WHOLE, site))
    ]
    return table(rows)


def _counts(found: Mapping[str, Any], section: str) -> dict[str, int]:
    by_site = {site: told.get(section) for site, told in found.get("count", {}).items()}
    return {site: int(number) for site, number in by_site.items() if _is_number(number)}


def _quartiles(found: Mapping[str, Any], section: str) -> dict[str, dict[str, float]]:
    """Read a number's quartiles by site; a site that has told none, or no numbers, is left out."""
    by_site = {site: told.get(section) or {} for site, told in found.get(_QUANTILE, {}).items()}
    return {
        site: {name: float(told[name]) for name in QUARTILES}
        for site, told in by_site.items()
        if site != _WHOLE and all(_is_number(told.get(name)) for name in QUARTILES)
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
