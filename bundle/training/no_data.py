"""A config whose data are not there yet can be looked at, but not run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.data.datalist import inference_cases

logger = logging.getLogger(__name__)


class NoCases(list):
    """No cases, because the place where they should be does not exist.

    MONAI's tools build every part of a config to see whether it has the parts that they need, often
    before there are data.

    Args:
        why: what a run must say.
    """

    def __init__(self, why: FileNotFoundError) -> None:
        super().__init__()
        self.why = why


def cases_if_any(source: str | Path, *args: Any, **choices: Any) -> list[dict[str, Any]]:
    """List the cases to segment, as `inference_cases` does, but none where there is no `source`.

    Raises:
        ValueError, FileNotFoundError: as `inference_cases`, for a source that exists.
    """
    try:
        return inference_cases(source, *args, **choices)
    except FileNotFoundError as error:
        if Path(source).exists():
            raise
        logger.warning(f"no cases yet: {error}")
        return NoCases(error)


def check_any(cases: Sequence[Any]) -> bool:
    """Refuse to run without data.

    Returns:
        True.

    Raises:
        FileNotFoundError: where the cases should be, there is nothing.
    """
    if isinstance(cases, NoCases):
        raise FileNotFoundError(str(cases.why)) from None
    return True
