from __future__ import annotations

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from bundle.sentiment.files import load_layout, write_layout


@pytest.fixture
def layout():
    rng = np.random.default_rng(0)

    def section(samples):
        return {
            "text": rng.standard_normal((samples, 4, 3)).astype(np.float32),
            "audio": rng.standard_normal((samples, 5, 2)),
            "audio_lengths": list(range(1, samples + 1)),
            "regression_labels": rng.uniform(-3, 3, samples).astype(np.float32),
            "id": [f"video{i}$_$0" for i in range(samples)],
        }

    return {"train": section(3), "valid": section(1), "test": section(2)}


def equal(one, other):
    return {s: set(v) for s, v in one.items()} == {s: set(v) for s, v in other.items()} and all(
        np.array_equal(one[section][name], other[section][name])
        for section in one
        for name in one[section]
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_comes_back_whatever_its_protocol(layout, tmp_path, protocol):
    layout["train"]["raw_text"] = np.array(["good film", "bad film", "a film"], dtype=object)
    layout["train"]["score"] = np.float64(0.5)
    layout["valid"] = OrderedDict(layout["valid"])
    path = tmp_path / "unaligned_50.pkl"
    path.write_bytes(pickle.dumps(layout, protocol))
    loaded = load_layout(path)
    assert equal(loaded, layout)
    assert loaded["train"]["text"].dtype == np.float32


def test_a_pickle_of_numpy_2_comes_back(layout, tmp_path):
    # Its one difference: the helpers lie in numpy._core. Protocol 0 is text, so we can write it.
    content = pickle.dumps(layout, 0).replace(b"numpy.core.", b"numpy._core.")
    (tmp_path / "new.pkl").write_bytes(content)
    assert b"numpy._core.multiarray" in content
    assert equal(load_layout(tmp_path / "new.pkl"), layout)


class Malicious:
    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (os.system, f"{os.system.__module__}.system"),
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (np.load, "numpy.load"),
    ],
)
def test_a_pickle_that_would_run_something_is_refused_unrun(layout, tmp_path, call, named):
    proof = tmp_path / "it_ran"
    layout["test"]["id"] = Malicious(call, f"touch {proof}")
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps(layout))
    with pytest.raises(ValueError, match=rf"bad\.pkl: expected .*it asks for {named}.*\.npz"):
        load_layout(path)
    assert not proof.exists()


def test_a_pickle_that_hides_behind_an_admitted_name_is_refused(tmp_path):
    # A dotted name is looked up in a module's objects, from which one could reach anything.
    path = tmp_path / "bad.pkl"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__doc__\x93.")
    with pytest.raises(ValueError, match=r"it asks for numpy\.ndarray\.__doc__"):
        load_layout(path)


@pytest.mark.parametrize("name", ["broken.pkl", "broken.npz"])
@pytest.mark.parametrize("content", [b"", b"no archive", b"\x80\x04]"])
def test_a_broken_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: expected an? "):
        load_layout(tmp_path / name)


def test_a_cut_off_archive_is_named(layout, tmp_path):
    write_layout(layout, tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.npz: expected an \.npz archive"):
        load_layout(tmp_path / "a.npz")


def test_an_archive_of_objects_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **{"train/text": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match=r"a\.npz: expected an \.npz archive of plain arrays"):
        load_layout(tmp_path / "a.npz")


def test_an_archive_comes_back_and_is_written_byte_for_byte_the_same(layout, tmp_path):
    write_layout(layout, tmp_path / "a.npz")
    write_layout(layout, tmp_path / "b.npz")
    assert equal(load_layout(tmp_path / "a.npz"), layout)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with pytest.raises(ValueError, match=r"ends in \.npz, got .*a\.pkl"):
        write_layout(layout, tmp_path / "a.pkl")


@pytest.mark.parametrize(
    ("content", "got"),
    [({"train": {}, "dev": {}, "test": {}}, r"\['train', 'dev', 'test'\]"), ([1], "list")],
)
def test_another_layout_is_refused(tmp_path, content, got):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=rf"each of \['train', 'valid', 'test'\], got {got}"):
        load_layout(tmp_path / "a.pkl")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none at .*nowhere\.pkl"):
        load_layout(tmp_path / "nowhere.pkl")
