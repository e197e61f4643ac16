"""Files of feature sequences, laid out as CMU-MOSI features usually are.

An .npz archive of plain arrays, each called by its section ("train", "valid" or "test") and name:

    train/text (N, T, F), train/audio, train/vision      features, padded to T frames
    train/audio_lengths (N,), ...                        how many frames are not padding
    train/text_bert (N, 3, T), second row 1 = a word     the same for the text
    train/regression_labels (N,), train/id (N,) names    others are not read
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bundle.atomic import written_atomically

SECTIONS = ("train", "valid", "test")
CONVERSION = """\
import pickle, numpy
content = pickle.load(open("mosi.pkl", "rb"), encoding="latin1")
numpy.savez_compressed("mosi.npz", **{f"{section}/{name}": numpy.array(list(values))
    for section in ("train", "valid", "test") for name, values in content[section].items()})
"""

Layout = dict[str, dict[str, Any]]


def load_layout(path: str | Path) -> Layout:
    """Read a file of feature sequences.

    Returns:
        Section -> name -> array, as they stand in the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no .npz archive, is broken, holds more than plain arrays, or lacks a
            section.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of feature sequences, found none at {path}")
    if path.suffix != ".npz":
        raise ValueError(
            f"{path}: expected an .npz archive. A pickle can run any code when it is opened, so it "
            f"is not opened here. Convert it on a machine where you trust the file:\n{CONVERSION}"
        )
    content: Layout = {}
    try:
        # Opened here, since NumPy leaves the file open where the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for key in archive.files:
                section, _, name = key.partition("/")
                content.setdefault(section, {})[name] = archive[key]
    except OSError:
        raise
    except Exception as error:  # a damaged archive fails in zipfile, zlib or NumPy
        raise ValueError(
            f"{path}: expected an .npz archive of plain arrays called 'train/text' and so on, "
            f"but {error}"
        ) from error
    if not set(SECTIONS) <= set(content):
        raise ValueError(
            f"{path}: expected arrays in each of the sections {list(SECTIONS)}, got those of "
            f"{list(content)}. Rename the sections, or split the file."
        )
    return {section: content[section] for section in SECTIONS}


def write_layout(content: Mapping[str, Mapping[str, Any]], path: str | Path) -> None:
    """Write sections of arrays as a compressed .npz archive; equal content gives equal bytes.

    Raises:
        ValueError: the ending is not .npz.
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
