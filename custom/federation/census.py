"""A census of the federation: which site has how many cases of which modality. No image is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.statistics_spec import DataType, Feature, Statistics
from nvflare.app_common.executors.statistics.statistics_executor import StatisticsExecutor
from nvflare.app_common.statistics.json_stats_file_persistor import JsonStatsFileWriter
from nvflare.app_common.workflows.statistics_controller import StatisticsController
from nvflare.job_config.api import FedJob
from nvflare.recipe.spec import Recipe

from bundle.data.census import modality_counts, table
from bundle.data.datalist import SECTIONS, load_datalist
from bundle.modalities import BRATS_MODALITIES
from federation.rules import job_name
from federation.settings import Site, find_site

CASES = "cases"
MIN_COUNT = 5
# In the job's folder at the server.
OUTPUT = "census.json"
_WHOLE = "Global"


class ModalityCensus(Statistics):
    """Counts a site's cases for NVFlare's statistics.

    NVFlare's data sets are the sections of the datalist, and its features are the modalities and
    `cases`, which counts all.

    Args:
        modalities: the vocabulary.
        min_count: a smaller number leaves the site as 0, because a few people can be recognised.
            (NVFlare's own MinCountCleanser does not change counts.)
    """

    _always_serialize_args = ("modalities", "min_count")

    def __init__(
        self, modalities: Sequence[str] = BRATS_MODALITIES, min_count: int = MIN_COUNT
    ) -> None:
        super().__init__()
        self.modalities, self.min_count = list(modalities), min_count
        self.datalist: Mapping[str, Any] = {}

    def initialize(self, fl_ctx: FLContext) -> None:
        """Read the site's datalist, and none of the files that it names."""
        app_root = fl_ctx.get_prop(FLContextKey.APP_ROOT) or "."
        site = find_site(fl_ctx.get_identity_name(), app_root)
        self.datalist = load_datalist(datalist_path(site), self.modalities)
        cases = len(self.datalist.get("training", ()))
        # What is below it leaves as 0; infinite where the site does not take part.
        self.min_count = site.rules.census_minimum(job_name(fl_ctx), cases, self.min_count)

    def features(self) -> dict[str, list[Feature]]:
        """List what is counted, by section."""
        names = [*self.modalities, CASES]
        return {section: [Feature(name, DataType.INT) for name in names] for section in SECTIONS}

    def count(self, dataset_name: str, feature_name: str) -> int:
        """Count a section's cases that have a modality, or all; 0 = fewer than `min_count`."""
        items = self.datalist.get(dataset_name, [])
        counts = {CASES: len(items), **modality_counts(items, self.modalities)}
        number = counts[feature_name]
        return number if number >= self.min_count else 0


def datalist_path(site: Site) -> Path:
    """Return a site's datalist, by the rule of the configs.

    Raises:
        ValueError: the site's settings name neither it nor its folder.
    """
    if site.ids.get("datalist_file"):
        return Path(site.ids["datalist_file"])
    if site.ids.get("dataset_dir"):
        return Path(site.ids["dataset_dir"]) / "datalist.json"
    raise ValueError(
        f"{site.name}: expected datalist_file or dataset_dir in the site's settings, got neither. "
        "Set one of them with python -m federation.kit."
    )


class CensusRecipe(Recipe):
    """The census as a job of NVFlare's own statistics.

    Args:
        name: of the job.
        modalities, min_count: see `ModalityCensus`.
    """

    def __init__(
        self,
        name: str,
        modalities: Sequence[str] = BRATS_MODALITIES,
        min_count: int = MIN_COUNT,
    ) -> None:
        job = FedJob(name=name, min_clients=1)
        job.job.set_app_packages(["bundle", "federation"])
        controller = StatisticsController(
            {"count": {}}, writer_id="writer", enable_pre_run_task=False
        )
        job.to_server(controller)
        job.to_server(JsonStatsFileWriter(OUTPUT), id="writer")
        job.to_clients(ModalityCensus(modalities, min_count), id="census")
        job.to_clients(StatisticsExecutor(generator_id="census"), tasks=["fed_stats"])
        super().__init__(job)


def census_table(path: str | Path, section: str = "training") -> str:
    """Lay out the counts of a section: a line for each site, and one for all; 0 = too few to tell.

    Args:
        path: the JSON file that the job wrote at the server.
        section: of the datalists.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    counts: dict[str, dict[str, int]] = {}
    for feature, statistics in content.items():
        for site, by_section in statistics.get("count", {}).items():
            number = by_section.get(section)
            if number is not None:
                counts.setdefault(site, {})[feature] = int(number)
    sites = sorted(counts, key=lambda site: (site == _WHOLE, site))
    features = [name for name in content if name != CASES]
    rows = [("site", CASES, *features)]
    rows += [
        (site, *(str(counts[site].get(name, "-")) for name in (CASES, *features))) for site in sites
    ]
    return table(rows)
