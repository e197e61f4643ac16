"""A site's own state from round to round, in one file that is whole or does not exist."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.training.files import keep_previous, read_checkpoint, save_atomically

logger = logging.getLogger(__name__)

# Not .pt: MONAI Label would offer it as a model.
FILE = "site_state.ckpt"


class SiteState:
    """The checkpoint of one site in one stage: private tensors and optimiser.

    A trainer that is killed and started again goes on from it, and so does a job that resumes an
    earlier one of the same federation.

    Args:
        folder: the stage's folder at the site.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / FILE

    def save(self, run: str, number: int, content: Mapping[str, Any]) -> None:
        """Write the state after round `number` of a federation's `run`.

        Raises:
            OSError: the disk is full or the folder went away; the state before is intact.
        """
        save_atomically({"run": run, "round": number, **content}, self.path)

    def load(self, run: str) -> dict[str, Any]:
        """Read what there is of a federation's run; {} where there is nothing.

        The state of another federation is kept as `.previous` and not read. A state that cannot be
        read stops nothing: all tensors that are not private come from the server.
        """
        if not self.path.exists():
            return {}
        try:
            content = read_checkpoint(self.path, "cpu")
        except (ValueError, OSError) as error:
            logger.warning(f"the site starts without its private parameters and optimiser: {error}")
            return {}
        if content.get("run") != run:
            keep_previous(self.path)
            self.path.unlink()
            return {}
        number = content.get("round")
        logger.info(f"the site goes on from its state after round {number} in {self.path}")
        return content
