"""A method small enough to check by hand, and the rules for it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path, PurePath

import numpy as np
import pytest
import torch

if find_spec("federation") is None:
    # As NVFlare does with a job's custom folder; an editable install needs none of it.
    sys.path.append(str(Path(__file__).resolve().parents[2] / "custom"))

MODALITIES = ("t1", "t2", "flair")


@pytest.fixture
def state():
    """A method's state: an encoder for each modality, blocks along an axis, and every kind."""
    encoders = {f"network.encoders.{i}.weight": torch.full((2,), float(i)) for i in range(3)}
    return {
        **encoders,
        "network.first.weight": torch.arange(12.0).reshape(2, 6),
        "network.head.weight": torch.full((4,), 0.5),
        "network.norm.weight": torch.ones(2),
        "teacher.n_averaged": torch.tensor(0),
        "bank.counts": torch.zeros(3, dtype=torch.float64),
        "dice_sums": torch.zeros(3),
    }


@pytest.fixture
def rules_by_name():
    """The rules as plain values, as a job names them."""
    return {
        "modality_parameters": [r"\.encoders\.{index}\."],
        "modality_axes": {r"\.first\.weight$": 1},
        "private_parameters": [r"\.norm\."],
        "additive_statistics": [r"^bank\."],
        "recounted_statistics": ["^dice_sums$"],
    }


@pytest.fixture
def rules(rules_by_name):
    from federation.protocol.exchange import ExchangeRules

    return ExchangeRules(MODALITIES, **rules_by_name)


@pytest.fixture
def exchange(rules, state):
    from federation.protocol.exchange import Exchange

    return Exchange(rules, state)


@pytest.fixture
def contribute(exchange, state):
    """Give contribute(site, cases, all_cases=..., **moved): everything it holds moves by 1.

    A site adds its sums once: they move in round 0, or where no round is told.

    `moved` are differences by key, with __ for a dot, that replace the ones.
    """
    from federation.protocol.contribution import Contribution
    from federation.protocol.contribution import expected_type as type_of

    def make(site="A", cases=None, all_cases=None, moved=None, **about):
        cases = {"t1": 2, "t2": 2, "flair": 2} if cases is None else cases
        all_cases = max(cases.values()) if all_cases is None else all_cases
        update = {
            key: torch.ones(state[key].shape, dtype=type_of(exchange.parts[key], state[key]))
            for key in exchange.held(cases)
        }
        if about.get("round"):
            update["bank.counts"].zero_()
        update.update(moved or {})
        return Contribution(site, update, cases, all_cases, **about)

    return make


@pytest.fixture
def find_secrets():
    """Give find_secrets(message, names): 'where: what' for each name and path in a message.

    A message is anything that can be sent: nested containers (keys count, too), texts, bytes,
    arrays and objects. Tensors of single bytes are read as text.
    """
    from federation.site.patient_names import find_names

    def search(message, names=()):
        found = _texts(message, "message", {})
        return [f"{where}: {what!r}" for where, text in found for what in find_names(text, names)]

    return search


@pytest.fixture
def state_dir(tmp_path, monkeypatch):
    """Give the folder in which the sites' settings say that they keep their state."""
    from federation.settings import VARIABLE

    (tmp_path / "site.yaml").write_text("state_dir: state")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "site.yaml"))
    return tmp_path / "state"


def _texts(value, where, seen):
    """Yield every text with where it stands; every object once."""
    if isinstance(value, str | PurePath):
        yield where, str(value)
    elif isinstance(value, bytes | bytearray):
        yield where, value.decode("utf-8", errors="replace")
    elif isinstance(value, np.ndarray) and value.dtype.kind in "USO":
        yield from _texts(value.ravel().tolist(), where, seen)
    elif isinstance(value, torch.Tensor | np.ndarray | np.generic):
        tensor = torch.as_tensor(value)
        if tensor.dtype in (torch.uint8, torch.int8):
            yield where, tensor.contiguous().numpy().tobytes().decode("utf-8", errors="replace")
    elif id(value) not in seen:
        # Kept alive: an id is given to another object once its own is gone.
        seen[id(value)] = value
        if isinstance(value, Mapping):
            yield from _texts([*value, *value.values()], where, seen)
        elif isinstance(value, list | tuple | set | frozenset):
            for number, entry in enumerate(value):
                yield from _texts(entry, f"{where}[{number}]", seen)
        elif hasattr(value, "__dict__") and not isinstance(value, type):
            yield from _texts(vars(value), where, seen)
