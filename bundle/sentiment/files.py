"""Files of feature sequences, in the layout in which CMU-MOSI features are usually passed on.

The layout is a dictionary of sections, each a dictionary by name:

    {"train" | "valid" | "test": {
        "text": (N, T, F), "audio": (N, T, F), "vision": (N, T, F),     features, padded to T frames
        "audio_lengths": N whole numbers, "vision_lengths": ...,        frames that are not padding
        "text_bert": (N, 3, T), its second row 1 where a word stands    the same for the text
        "regression_labels": (N,), "id": N names, ...}}

It comes as a pickle, or as an .npz archive whose arrays are called "train/text" and so on.
"""

from __future__ import annotations

import codecs
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bundle.atomic import written_atomically

SECTIONS = ("train", "valid", "test")

Layout = dict[str, dict[str, Any]]

# A pickle names what it calls, so this is all that a file can make us run. NumPy's helpers are
# asked for by example: the modules that they lie in were renamed in NumPy 2, and files name both.
_CONTAINERS = (list, dict, tuple, set, frozenset, bytearray, complex, slice)
_ADMITTED: Mapping[tuple[str, str], Any] = {
    **{("builtins", kind.__name__): kind for kind in _CONTAINERS},
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("_codecs", "encode"): codecs.encode,  # how older protocols write bytes
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"numpy.{core}.{module}", helper.__name__): helper
        for core in ("core", "_core")
        for module, helper in (
            ("multiarray", np.zeros(0).__reduce__()[0]),
            ("multiarray", np.float64(0).__reduce__()[0]),
            ("numeric", np.zeros(1).__reduce_ex__(5)[0]),
        )
    },
}


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds arrays and plain containers and refuses to import anything else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def load_layout(path: str | Path) -> Layout:
    """Read a file of feature sequences.

    Args:
        path: an .npz archive, or a pickle under any other ending. A pickle may hold arrays and
            plain containers; whatever else it asks for is refused before it is run.

    Returns:
        The layout of this module's docstring, values as they stand in the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken, asks for more than arrays, or has another layout.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of feature sequences, found none at {path}")
    content = _load_npz(path) if path.suffix == ".npz" else _load_pickle(path)
    known = isinstance(content, Mapping) and all(
        isinstance(content.get(section), Mapping) for section in SECTIONS
    )
    if not known:
        found = list(content) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"{path}: expected a dictionary with a dictionary for each of {list(SECTIONS)}, "
            f"got {found}. Rename the sections, or split the file."
        )
    return {section: dict(content[section]) for section in SECTIONS}


def write_layout(content: Mapping[str, Mapping[str, Any]], path: str | Path) -> None:
    """Write a layout as a compressed .npz archive; the same content gives the same bytes.

    Args:
        content: the layout of this module's docstring, of arrays and of lists of plain values.
        path: replaced once everything is written.

    Raises:
        ValueError: the ending is not .npz, by which `load_layout` would know the format.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"expected a name that ends in .npz, got {path}")
    arrays = {
        f"{section}/{name}": np.asarray(value)
        for section, values in content.items()
        for name, value in values.items()
    }
    with written_atomically(path) as file:
        np.savez_compressed(file, **arrays)


def _load_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            # Python 2 wrote some of these files; its strings, arrays included, read as Latin-1.
            return _ArrayUnpickler(file, encoding="latin1").load()
    except OSError:
        raise
    except Exception as error:  # a broken pickle can fail in any way
        raise ValueError(
            f"{path}: expected a pickle of NumPy arrays and plain containers, but {error}. A "
            "pickle can run anything, so the rest is refused: load the file where you trust it "
            "and write its arrays into an .npz archive as 'train/text', 'train/audio', ..."
        ) from error


def _load_npz(path: Path) -> Layout:
    content: Layout = {}
    try:
        # Opened here, since NumPy leaves the file open where the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for key in archive.files:
                section, _, name = key.partition("/")
                content.setdefault(section, {})[name] = archive[key]
    except OSError:
        raise
    except Exception as error:  # as above: a damaged archive fails in zipfile, zlib or NumPy
        raise ValueError(
            f"{path}: expected an .npz archive of plain arrays called 'train/text' and so on, "
            f"but {error}"
        ) from error
    return content
