"""Makes the bundle's models/model.pt of a federation's state at the server."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bundle.training.best import BestModel
from bundle.training.files import read_checkpoint
from federation.protocol.message_values import as_state

logger = logging.getLogger(__name__)

NETWORK = "network."
# Where NVFlare's persistor and ours put the parameters.
_NESTED = "model"


def read_server_state(path: str | Path) -> dict[str, Tensor]:
    """Read the parameters of NVFlare's `FL_global_model.pt`, or of a flat state dict.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"expected the server's checkpoint in {path}, found no such file. A federation writes "
            "it after each round."
        )
    content: Mapping[str, Any] = read_checkpoint(path, "cpu")
    if isinstance(content.get(_NESTED), Mapping):
        content = content[_NESTED]
    if not content:
        raise ValueError(f"{path}: expected a state dict, got an empty one. Copy the file again.")
    return as_state(content, str(path))


def network_state(state: Mapping[str, Tensor], network: nn.Module, whose: str) -> dict[str, Tensor]:
    """Pick the deployed network's tensors out of a method's state, every one of them.

    Args:
        state: a method's state, where the network's keys begin with `network.`, or a network's.
        network: the deployed network.
        whose: what messages start with.

    Raises:
        ValueError: a tensor of the network is missing, of another shape or not finite, with how
            many of how many are right; or the network's part holds one that the network lacks.
    """
    inside = {k.removeprefix(NETWORK): v for k, v in state.items() if k.startswith(NETWORK)}
    found = inside or dict(state)
    own = network.state_dict()
    right = [key for key, value in own.items() if key in found and _fits(found[key], value)]
    if len(right) < len(own) or len(found) > len(own):
        wrong = sorted((set(own) | set(found)) - set(right))
        raise ValueError(
            f"{whose}: {len(right)} of the network's {len(own)} tensors are there, of the right "
            f"shape and finite; for instance {wrong[0]!r} is not. Give the configs and settings of "
            "the federation's stage."
        )
    return {key: found[key] for key in own}


def export_model(
    source: str | Path,
    network: nn.Module,
    target: str | Path,
    made_for: Mapping[str, Any],
    made_with: Mapping[str, Any] | None = None,
    private_parameters: Sequence[str] = (),
) -> str:
    """Write the server's model as the bundle's: a flat state dict, with a note beside it.

    What stood at the target is kept as `.previous`.

    Args:
        source: the server's checkpoint.
        network: the deployed network of the same config; it is given the weights.
        target: usually `models/model.pt`; the note has the same name with `.json`.
        made_for, made_with: the config's, see `bundle.training.best.BestModel`.
        private_parameters: patterns over the method's keys of tensors that never left the sites.
            The server has only their first values, which is logged as a warning.

    Returns:
        "N of N tensors".

    Raises:
        FileNotFoundError, ValueError: as in `read_server_state` and `network_state`.
        OSError: the target cannot be written.
    """
    state = network_state(read_server_state(source), network, str(source))
    network.load_state_dict(state)
    BestModel(network, str(target), made_for, made_with).save()
    untrained = [k for k in state if any(re.search(p, NETWORK + k) for p in private_parameters)]
    if untrained:
        logger.warning(
            f"{len(untrained)} tensors of {target} never left the sites and are as the federation "
            f"started, {untrained[0]!r} for instance. Use a site's own model if you need them."
        )
    loaded = f"{len(state)} of {len(network.state_dict())} tensors"
    logger.info(f"wrote {loaded} from {source} to {target}")
    return loaded


def _fits(value: Tensor, own: Tensor) -> bool:
    if value.shape != own.shape:
        return False
    return not value.is_floating_point() or bool(value.isfinite().all())
