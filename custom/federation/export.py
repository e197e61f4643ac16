"""Make the bundle's model of a state at the server: `python -m federation.export`."""

from __future__ import annotations

from typing import Any

from bundle.cli.command import main
from bundle.cli.kinds import Names, PathText, Table
from federation.protocol.stages import Stage, read_workflow
from federation.server.checkpoint import export_model


def export(
    source: PathText, target: PathText, configs: Names, settings: Table | None = None
) -> None:
    """Write the model of a federation as a flat state dict, every tensor or none.

    Args:
        source: the server's `FL_global_model.pt`, or its `best_FL_global_model.pt`.
        target: usually models/model.pt; a note of the same name with .json is written beside it.
        configs: config files of the stage, as its job names them: train.json,federation.yaml.
        settings: settings of the stage, such as '{filters: 8}'.
    """
    parser = read_stage_parser(Stage("export", list(configs), 0, settings=settings or {}))
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
    main(export, "python -m federation.export")
