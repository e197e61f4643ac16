"""A site's own state from round to round, in one file that is whole or does not exist."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bundle.training.files import read_checkpoint, save_atomically, set_aside
from federation.protocol.changes import ChangesRefused

logger = logging.getLogger(__name__)

# Not .pt: MONAI Label would offer it as a model.
FILE = "site_state.ckpt"
# What the coordinator is told.
ANEW = "started anew, without private parameters and optimiser: its own state was damaged or unfit"
# As the server's program makes it, see `federation.server.controller`.
_WORD = re.compile(r"[0-9a-f]{32}")


class RunWords:
    """The words by which this process knows the runs that its job's stages belong to.

    A word that is not the state's sets that state aside, and the oldest of those goes. So a stage
    keeps its first word: a server costs a site at most one state for each job, which is kept.
    """

    def __init__(self) -> None:
        self._words: dict[str, str] = {}

    def check(self, stage: str, word: Any) -> str:
        """Return a message's word.

        Args:
            stage: of the message.
            word: what the server has sent.

        Raises:
            ValueError: it is no word, or another one than the stage had before.
        """
        if not isinstance(word, str) or not _WORD.fullmatch(word):
            raise ValueError(
                f"expected the word of the federation's run, 32 of 0-9 and a-f, got {word!r:.40}. "
                "The server needs the same bundle."
            )
        if self._words.setdefault(stage, word) != word:
            raise ValueError(
                f"the word of the federation's run has changed within one job, in stage {stage}. "
                "The site's own state stays as it is. Submit another job."
            )
        return word


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
        save_atomically({"run": run, "round": number, **content}, self.path, private=True)

    def load(self, run: str) -> dict[str, Any]:
        """Read what there is of a federation's run; {} where there is nothing.

        The state of another federation is kept as `.previous`, with the time, and not read.

        Raises:
            ValueError: the file is damaged, or something else.
            OSError: it may not be read.
        """
        if not self.path.exists():
            return {}
        content = read_checkpoint(self.path, "cpu")
        if not isinstance(content.get("run"), str):
            raise ValueError(f"{self.path}: expected the word of the run that it is of, got none")
        if content["run"] != run:
            set_aside(self.path, "previous")
            return {}
        number = content.get("round")
        logger.info(f"the site goes on from its state after round {number} in {self.path}")
        return content

    def give_to(self, take_up: Callable[[Mapping[str, Any]], None], run: str) -> list[str]:
        """Have a training go on from the state, or start anew where that cannot be used.

        A state that cannot be used stops nothing, because all tensors that are not private come
        from the server. It is kept as `.damaged`, with the time.

        Args:
            take_up: takes the content, all or nothing; raises a ValueError where it does not fit.
            run: as in `load`.

        Returns:
            What the coordinator should know.

        Raises:
            ChangesRefused: the state is whole, and was made with something else.
        """
        try:
            take_up(self.load(run))
        except ChangesRefused:
            raise
        except (ValueError, OSError) as error:
            logger.error(f"{self.path}: {ANEW} ({error})")
            self._set_damaged_aside()
            return [ANEW]
        return []

    def _set_damaged_aside(self) -> None:
        try:
            set_aside(self.path, "damaged")
        except OSError as error:
            logger.error(f"could not rename {self.path}, the next round writes over it: {error}")
