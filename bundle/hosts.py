"""How an error reaches the person at the other end, in programs that host the bundle."""

from __future__ import annotations

import sys

# The module that is MONAI Label's server. Its training runs in a process without it.
SERVER = "monailabel.app"
UNPROCESSABLE = 422


def answer(error: Exception) -> Exception:
    """Return what to raise, so that whoever sent a case reads what is wrong with it.

    MONAI Label's server answers any exception but FastAPI's own with "Internal Server Error"; the
    text is in its log, where a reader in 3D Slicer or OHIF does not look.

    Args:
        error: what is wrong with a case.

    Returns:
        In that server FastAPI's exception with status 422 and the text; else `error` itself.
    """
    fastapi = sys.modules.get("fastapi")
    if SERVER not in sys.modules or fastapi is None:
        return error
    return fastapi.HTTPException(status_code=UNPROCESSABLE, detail=str(error))
