"""A training that was started once for each GPU, of which the bundle uses one."""

from __future__ import annotations

import logging
import os
import sys

logger = logging.getLogger(__name__)


def leave_training_to_first() -> None:
    """Go on in the first of the processes that `torchrun` started; end the others, without error.

    Source: `torchrun` numbers its processes in the environment, RANK of WORLD_SIZE.

    Raises:
        SystemExit: with status 0, in every process but the first.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if rank:
        sys.exit(0)
    if count > 1:
        logger.warning(
            f"{count} processes were started, one for each GPU: this bundle trains on one GPU, in "
            "the first process. The others end now."
        )
