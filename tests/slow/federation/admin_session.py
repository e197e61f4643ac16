"""Asks NVFlare's server, a question a line: `python admin_session.py WHO STARTUP_KIT`.

A process of its own, because a session leaves sockets open; one for many questions, because
NVFlare's command loads its libraries for each, which takes seconds of a core.
"""

from __future__ import annotations

import json
import sys

from nvflare.fuel.flare_api.flare_api import new_secure_session


def main(who: str, kit: str) -> None:
    session = None
    for line in sys.stdin:
        method, *words = json.loads(line)
        try:
            session = session or new_secure_session(who, kit, timeout=20)
            answer = {"answer": getattr(session, method)(*words)}
        except Exception as error:
            # The server may be down, or another one by now.
            session, answer = None, {"error": type(error).__name__, "text": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
