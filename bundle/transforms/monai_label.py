"""What MONAI Label's server needs beside a result: readable errors and a file format."""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable, Sequence
from typing import Any

# The module that is MONAI Label's server. Its training runs in a process without it.
SERVER = "monailabel.app"
UNPROCESSABLE = 422
# What a client may ask the server to write, and what it gets where the case is no single file.
RESULT_FORMAT, USUAL_FORMAT = "result_extension", ".nii.gz"
# Where the server takes what it answers beside the label, as JSON, and our key in it.
RESULT_NOTES, WARNINGS = "result", "warnings"


def answer(error: Exception) -> Exception:
    """Return the exception that lets the sender of a case read what is wrong with it.

    The server answers any exception but FastAPI's own with "Internal Server Error"; the text is in
    its log, where a reader in 3D Slicer or OHIF does not look.

    Args:
        error: what is wrong with a case.

    Returns:
        In the server FastAPI's exception with status 422 and the text; else `error` itself.
    """
    fastapi = sys.modules.get("fastapi")
    if SERVER not in sys.modules or fastapi is None:
        return error
    return fastapi.HTTPException(status_code=UNPROCESSABLE, detail=str(error))


def settle_format(item: dict[Hashable, Any], source: Any) -> None:
    """Let the server write a NIfTI file for a folder or a list, which has no ending to go by.

    Args:
        item: the server's request, completed in place; elsewhere it is left alone.
        source: the case's files, as `bundle.transforms.load.LoadModalitiesd` takes them.
    """
    single = isinstance(source, (str, os.PathLike)) and not os.path.isdir(source)
    if SERVER in sys.modules and not single and not item.get(RESULT_FORMAT):
        item[RESULT_FORMAT] = USUAL_FORMAT


def tell(item: dict[Hashable, Any], lines: Sequence[str]) -> None:
    """Let the server's answer say what is odd about a case that it segments all the same.

    A reader does not see the server's log. The answer's `params` get the lines under `warnings`.

    Args:
        item: the server's request, completed in place; elsewhere it is left alone.
        lines: one warning each; none = the answer stays as it is.
    """
    if SERVER in sys.modules and lines:
        notes = item.get(RESULT_NOTES)
        item[RESULT_NOTES] = {**(notes if isinstance(notes, dict) else {}), WARNINGS: list(lines)}
