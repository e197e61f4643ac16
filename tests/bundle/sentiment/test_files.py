from __future__ import annotations

import pickle

import numpy as np
import pytest

from bundle.sentiment.files import CONVERSION, load_layout, write_layout


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


def test_an_archive_comes_back_and_is_written_byte_for_byte_the_same(layout, tmp_path):
    write_layout(layout, tmp_path / "a.npz")
    write_layout(layout, tmp_path / "b.npz")
    loaded = load_layout(tmp_path / "a.npz")
    assert equal(loaded, layout)
    assert loaded["train"]["text"].dtype == np.float32
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with pytest.raises(ValueError, match=r"ends in \.npz, got .*a\.pkl"):
        write_layout(layout, tmp_path / "a.pkl")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


def test_a_pickle_is_not_opened_and_the_error_tells_how_to_convert_it(
    layout, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    proof, path = tmp_path / "it_ran", tmp_path / "mosi.pkl"
    path.write_bytes(pickle.dumps({**layout, "extra": Malicious(proof)}))
    with pytest.raises(ValueError, match=r"mosi\.pkl: expected an \.npz.*trust the file") as caught:
        load_layout(path)
    assert not proof.exists()
    assert str(caught.value).endswith(CONVERSION)
    # Arrays of texts are often arrays of objects, which no plain archive holds.
    layout["train"]["raw_text"] = np.array(["good film", "bad film", "a film"], dtype=object)
    path.write_bytes(pickle.dumps(layout))
    with pytest.warns(ResourceWarning, match=r"mosi\.pkl"):
        exec(CONVERSION, {})
    assert equal(load_layout(tmp_path / "mosi.npz"), layout)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x80\x04]"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "broken.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.npz: expected an \.npz archive of plain arrays"):
        load_layout(tmp_path / "broken.npz")


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


def test_other_sections_are_refused(layout, tmp_path):
    layout["dev"] = layout.pop("valid")
    write_layout(layout, tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"\['train', 'valid', 'test'\], got .*\['train', 'test',"):
        load_layout(tmp_path / "a.npz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none at .*nowhere\.npz"):
        load_layout(tmp_path / "nowhere.npz")
