"""Whether a site takes part in a task, by its own rules, before anything is worked at.

This runs in NVFlare's process at the site, which alone knows the job's name and its filters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nvflare.apis.dxo import DataKind, from_shareable
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.utils.task_utils import get_filters
from nvflare.private.privacy_manager import Scope

from federation.filters.privacy import GaussianPrivacy
from federation.protocol.messages import REFUSAL, VALIDATE
from federation.rules import job_name, methods_of
from federation.settings import Site


def check_task(
    site: Site, task: str, federation: str, configs: Iterable[Sequence[str]], fl_ctx: FLContext
) -> None:
    """Refuse a task that the site's rules do not allow.

    Args:
        site: the site's own settings.
        task: what is asked for.
        federation: the job's federation.
        configs: the config files of each stage of the job.
        fl_ctx: the context in which NVFlare runs the task, and then its filters.

    Raises:
        ValueError: why the site does not take part.
    """
    methods = [method for names in configs for method in methods_of(names)]
    site.rules.check_names(job_name(fl_ctx), federation, methods)
    if site.rules.needs_private and task != VALIDATE:
        check_private(site, result_filters(task, fl_ctx))


def result_filters(task: str, fl_ctx: FLContext) -> list[Filter]:
    """List the filters that NVFlare will apply to the task's result here, in their order.

    Those of the site's own scope (`local/privacy.json`) come before the job's.
    """
    chains = getattr(fl_ctx.get_prop(FLContextKey.RUNNER), "task_result_filters", None) or {}
    return get_filters(Scope.TASK_RESULT_FILTERS_NAME, fl_ctx, chains, task, FilterKey.OUT)


def check_private(site: Site, filters: Sequence[Any]) -> None:
    """Refuse a training whose result would leave without noise, or beyond the site's cap.

    The noise must come first: what another filter had scaled before would be scaled back after it.

    Args:
        site: the site's own settings.
        filters: as `result_filters` lists them.

    Raises:
        ValueError: why the site does not take part.
    """
    first = filters[0] if filters else None
    # Not one that inherits: its noise could be another.
    if type(first) is not GaussianPrivacy:
        raise ValueError(
            "the site takes part in private trainings only: GaussianPrivacy must be the first "
            "filter of this task's result"
        )
    first.check_affordable(site)


def check_answer(site: Site, task: str, reply: Shareable) -> None:
    """Refuse to send what the filter of noise would let pass as it is, but for a refusal.

    Raises:
        ValueError: the trainer answered with something else than an update or a refusal.
    """
    if not site.rules.needs_private or task == VALIDATE:
        return
    if reply.get_return_code() != ReturnCode.OK:
        return
    answer = from_shareable(reply)
    is_refusal = answer.data_kind == DataKind.METRICS and set(answer.data) == {REFUSAL}
    if answer.data_kind != DataKind.WEIGHT_DIFF and not is_refusal:
        raise ValueError(f"expected an update, which can be made private, got {answer.data_kind}")
