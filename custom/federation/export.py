"""From a state at the server to the bundle's model: `python -m federation.export`."""

from __future__ import annotations

from typing import Any

import fire

from federation.protocol.stages import Stage, read_workflow
from federation.server.checkpoint import export_model


def export(source: str, target: str, configs: Any, settings: Any = None) -> None:
    """Write a federation's state as a flat state dict, every tensor or none.

    Args:
        source: the server's `FL_global_model.pt`, or another of its states.
        target: usually models/model.pt; a note goes beside it.
        configs: of the stage, as its job names them, such as train.json,federation.yaml.
        settings: the stage's, such as '{filters: 8}'.
    """
    names = configs.split(",") if isinstance(configs, str) else list(configs)
    parser = read_stage_parser(Stage("export", names, 0, settings=settings or {}))
    told = export_model(
        source,
        parser.get_parsed_content("network"),
        target,
        parser.get_parsed_content("made_for"),
        parser.get_parsed_content("made_with"),
    )
    print(f"wrote {told} to {target}")


def read_stage_parser(stage: Stage) -> Any:
    """Read and prepare a stage's configs without its data."""
    workflow = read_workflow(stage, {"pretrained_file": None})
    workflow.initialize()
    return workflow.parser


if __name__ == "__main__":
    fire.Fire(export)
