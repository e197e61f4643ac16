"""Damage on demand in a participant's processes, for the tests of faults.

Python imports a module of this name at its start where it finds one. The variable SABOTAGE names a
JSON file, {round: fault}, that a test writes; without it nothing happens.
"""

import json
import os
import resource
import sys
import threading
import time


def _order(number):
    try:
        with open(os.environ["SABOTAGE"], encoding="utf-8") as file:
            return json.load(file).get(str(number), "")
    except FileNotFoundError:
        return ""


def _damage_updates():
    """Spoil what a trainer sends, or send it late."""
    import torch
    from federation.protocol import messages

    write = messages.to_message

    def spoilt(given, facts=None):
        order = _order(given.round)
        update = given.update
        key = next(key for key, value in update.items() if value.is_floating_point())
        if order == "nan":
            update[key] = torch.full_like(update[key], float("nan"))
        elif order == "inf":
            update[key] = torch.full_like(update[key], float("inf"))
        elif order == "shape":
            update[key] = torch.zeros(7)
        elif order == "missing":
            del update[key]
        elif order == "extra":
            update["nobody.knows.this"] = torch.zeros(2)
        elif order == "huge":
            update[key] = torch.full_like(update[key], 1e6)
        elif order == "facts":
            facts = {**facts, "seconds": [1.0]}
        elif order.startswith("late"):
            time.sleep(float(order.split()[1]))
        return write(given, facts)

    messages.to_message = spoilt


def _fill_disk():
    """Have the system refuse what a trainer writes, after the first bytes."""
    from federation.site.state import SiteState

    save = SiteState.save

    def full(self, run, number, content):
        if _order(number) != "disk":
            return save(self, run, number, content)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            return save(self, run, number, content)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    SiteState.save = full


def _poison_broadcasts():
    """Put NaN into what the server sends of a round, to as many sites as the order says."""
    import torch
    from federation.filters.half_precision import HalfPrecision
    from nvflare.apis.dxo import DataKind
    from nvflare.app_common.app_constant import AppConstants

    process, sent, lock = HalfPrecision.process_dxo, {}, threading.Lock()

    def poisoned(self, dxo, shareable, fl_ctx):
        result = process(self, dxo, shareable, fl_ctx)
        number = shareable.get_header(AppConstants.CURRENT_ROUND)
        order = _order(number)
        with lock:
            sent[number] = sent.get(number, 0) + 1
            ill = order.startswith("poison") and sent[number] <= int(order.split()[1])
        if ill and dxo.data_kind == DataKind.WEIGHTS:
            key = next(k for k, v in result.data.items() if v.is_floating_point())
            result.data[key] = torch.full_like(result.data[key], float("nan"))
        return result

    HalfPrecision.process_dxo = poisoned


def _ask_without_authorization():
    """Have the server tell sites that its users' commands need no permission."""
    from nvflare.private.admin_defs import Message
    from nvflare.private.defs import RequestHeader

    write = Message.set_header

    def forged(self, key, value):
        write(self, key, "false" if key == RequestHeader.REQUIRE_AUTHZ else value)

    Message.set_header = forged


if "SABOTAGE" in os.environ:
    if "federation.site.client" in sys.orig_argv:
        _damage_updates()
        _fill_disk()
    elif any("app.server.runner_process" in word for word in sys.orig_argv):
        _poison_broadcasts()
    elif any("app.server.server_train" in word for word in sys.orig_argv):
        _ask_without_authorization()
