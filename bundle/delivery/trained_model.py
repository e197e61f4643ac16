"""Trained weights together with the overlays that they were trained with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

import bundle
from bundle.training.weights import check_made_for, load_weights

CONFIGS = Path(bundle.ROOT) / "configs"
# Where weights are looked for, in this order, and the overlays that made them.
USUAL = {"models/model.pt": (), "demo/models/model.pt": ("configs/demo.yaml",)}
# Ids that say where one training read and wrote, and nothing about what came of it.
PLACES = ("dataset_dir", "datalist_file", "output_dir", "ckpt_dir", "cache_dir", "resume")


@dataclass(frozen=True)
class Trained:
    """A flat state dict and what has to be laid over the configs for them to fit it.

    Attributes:
        weights: the state dict; what it was made for and with lies beside it, as `.json`.
        overlays: config files, in order.
    """

    weights: Path
    overlays: tuple[Path, ...] = ()

    def note(self) -> dict[str, Any]:
        """Read what the weights were made for and with.

        Raises:
            ValueError: there is no such file beside them.
        """
        path = self.weights.with_suffix(".json")
        if not path.is_file():
            raise ValueError(
                f"expected {path.name} beside {self.weights}, which says what they were made for "
                "and with, found none. Training writes it: copy it along."
            )
        return json.loads(path.read_text(encoding="utf-8"))

    def config(self, *names: str) -> dict[str, Any]:
        """Merge configs of this bundle and lay the overlays over the first, but not `PLACES`."""
        first, *rest = (str(CONFIGS / name) for name in names)
        plain, ours = ConfigParser(), ConfigParser()
        plain.read_config([first, *rest])
        ours.read_config([first, *map(str, self.overlays), *rest])
        dropped = {"_meta_", *(set(PLACES) - set(plain.config))}
        merged = {id_: value for id_, value in ours.config.items() if id_ not in dropped}
        return merged | {id_: plain.config[id_] for id_ in PLACES if id_ in plain.config}

    def network(self, config: dict[str, Any] | None = None) -> nn.Module:
        """Build the network of a config and load the weights, every tensor or none.

        Args:
            config: see `config`; None = that of `inference.json`.

        Returns:
            The network on the CPU, in evaluation mode.

        Raises:
            ValueError: the weights do not fit, were made for something else, or are a nested
                checkpoint; their note is missing.
        """
        self.note()
        chosen = self.config("inference.json") if config is None else config
        parser = ConfigParser(config=deepcopy(chosen))  # which it rewrites in its own notation
        network = parser.get_parsed_content("network_def")
        try:
            check_made_for(str(self.weights), parser.get_parsed_content("made_for"))
            load_weights(network, str(self.weights))
        except ValueError as error:
            with_what = ", ".join(path.name for path in self.overlays) or "no overlay"
            raise ValueError(
                f"{error} (Used: {with_what}; name those of the training with --overlay.)"
            ) from error
        return network.eval()


def find_trained(weights: str | None = None, overlays: Sequence[str] = ()) -> Trained:
    """Find weights and overlays.

    Args:
        weights: a flat state dict; None = the first of `USUAL` that is there.
        overlays: the config files that were laid over `train.json` in the training; none = for
            weights of `USUAL` those that stand there.

    Raises:
        FileNotFoundError: no weights, or an overlay that is not there.
    """
    usual = {(Path(bundle.ROOT) / name).resolve(): laid for name, laid in USUAL.items()}
    candidates = [Path(weights).resolve()] if weights is not None else list(usual)
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"expected trained weights in {' or '.join(map(str, candidates))}, found none. "
            "Make some with `make demo`, train, or name a file with --weights."
        )
    given = [Path(name) for name in overlays]
    laid = given or [Path(bundle.ROOT) / name for name in usual.get(found, ())]
    missing = [str(path) for path in laid if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"expected the overlays of the training, found no file {missing}. Correct --overlay."
        )
    return Trained(found, tuple(laid))
