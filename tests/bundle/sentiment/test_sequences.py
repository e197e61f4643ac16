from __future__ import annotations

import logging
from copy import deepcopy

import numpy as np
import pytest
import torch

from bundle.sentiment.files import write_layout
from bundle.sentiment.phantom import make_feature_phantom
from bundle.sentiment.sequences import (
    FEATURE_MODALITIES,
    lose_modalities,
    read_features,
    standardise,
)

FEW = {"train": 40, "valid": 3, "test": 5}
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def layout():
    return make_feature_phantom(FEW)


@pytest.fixture
def read(tmp_path):
    def read(content):
        write_layout(content, tmp_path / "unaligned_50.npz")
        return read_features(tmp_path / "unaligned_50.npz")

    return read


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_file_is_read_as_it_is(layout, read, caplog):
    sections = read(layout)
    assert {key: len(section) for key, section in sections.items()} == FEW
    for key, section in sections.items():
        assert section.names == tuple(layout[key]["id"])
        assert np.array_equal(section.labels.numpy(), layout[key]["regression_labels"])
        assert bool(section.present.all())
        for name in FEATURE_MODALITIES:
            assert np.array_equal(section.frames[name].numpy(), layout[key][name])
            assert section.valid[name].sum(1).tolist() == layout[key][f"{name}_lengths"]
    assert messages(caplog) == []


@pytest.mark.parametrize("junk", [7, NAN])
def test_what_lies_beyond_the_length_is_padding(layout, read, caplog, junk):
    layout["train"]["audio"][3] = 0
    other = deepcopy(layout)
    inside = np.arange(30) < np.array(layout["train"]["audio_lengths"])[:, None]
    other["train"]["audio"][~inside] = junk
    one, same = read(layout)["train"], read(other)["train"]
    assert torch.equal(one.frames["audio"], same.frames["audio"])
    assert torch.equal(one.valid["audio"], same.valid["audio"])
    assert not same.present[3, 1]
    assert messages(caplog) == []


def test_nan_and_infinite_features_become_0_and_are_counted(layout, read, caplog, tmp_path):
    values = layout["test"]["audio"]
    values[0, 0, :2] = NAN
    values[1, 0, 0] = -INF
    layout["test"]["vision"] = layout["test"]["vision"].astype(np.float64)
    layout["test"]["vision"][2, 1, 3] = 1e300  # too large for float32
    section = read(layout)["test"]
    assert section.frames["audio"][[0, 0, 1], 0, [0, 1, 0]].tolist() == [0, 0, 0]
    assert section.frames["vision"][2, 1, 3] == 0
    assert section.frames["audio"][0, 0, 2] == float(values[0, 0, 2])
    assert all(bool(frames.isfinite().all()) for frames in section.frames.values())
    file = tmp_path / "unaligned_50.npz"
    total = {name: sum(layout["test"][f"{name}_lengths"]) for name in ("audio", "vision")}
    assert messages(caplog) == [
        f"{file}, test, audio: 3 of {5 * total['audio']} features are NaN or infinite and become 0",
        f"{file}, test, vision: 1 of {20 * total['vision']} features are NaN or infinite and "
        "become 0",
    ]


def test_all_zero_all_nan_or_of_length_0_counts_as_lacking(layout, read):
    layout["test"]["audio"][0] = 0
    layout["test"]["text"][1] = NAN
    layout["test"]["vision_lengths"][2] = 0
    section = read(layout)["test"]
    expected = torch.ones(5, 3, dtype=torch.bool)
    expected[[0, 1, 2], [1, 0, 2]] = False
    assert torch.equal(section.present, expected)


def test_a_sample_with_nothing_is_left_out_alone_and_named(layout, read, caplog):
    for name in FEATURE_MODALITIES:
        layout["test"][name][3] = 0
    section, whole = read(layout)["test"], layout["test"]
    assert section.names == tuple(whole["id"][row] for row in (0, 1, 2, 4))
    assert np.array_equal(section.labels, whole["regression_labels"][[0, 1, 2, 4]])
    assert np.array_equal(section.frames["text"], whole["text"][[0, 1, 2, 4]])
    (message,) = messages(caplog)
    assert "test: left out, since nothing is given of them: test$_$3" in message


def test_without_lengths_zero_frames_are_padding_wherever_they_are(layout, read):
    values = layout["test"]
    del values["vision_lengths"]
    values["vision"] = values["vision"][:, ::-1]
    section = read(layout)["test"]
    assert torch.equal(section.valid["vision"], torch.from_numpy((values["vision"] != 0).any(2)))
    assert not section.valid["vision"].all()


def test_without_lengths_the_tokens_tell_those_of_the_text(layout, read):
    values = layout["test"]
    lengths = values.pop("text_lengths")
    values["text_bert"] = np.zeros((5, 3, 20))
    values["text_bert"][:, 1] = np.arange(20) < np.array(lengths)[:, None]
    values["text"][:, -1] = 7  # embeddings of padding need not be 0
    values["text_bert"][:, 1, -1] = 0
    section = read(layout)["test"]
    expected = torch.arange(19) < torch.tensor(lengths)[:, None]
    assert torch.equal(section.valid["text"][:, :19], expected)
    assert not section.valid["text"][:, -1].any()


def test_older_files_are_read_too(layout, read):
    for values in layout.values():
        values["labels"] = values.pop("regression_labels")[:, None, None]
        values["id"] = np.array([[name, "0", "1"] for name in values["id"]])
    section = read(layout)["valid"]
    assert section.labels.shape == (3,)
    assert section.names[2] == "valid$_$2_0_1"


def spoil(key, value):
    return lambda values: values.__setitem__(key, value(values[key]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda v: v.pop("audio"), r"train, audio: expected features of that name, got \['id'"),
        (spoil("audio", lambda a: a[:-1]), r"audio: expected .*\(40 samples.*got \(39, 30, 5\)"),
        (spoil("audio", lambda a: a[:, :, 0]), r"audio: expected .* got \(40, 30\)"),
        (spoil("audio", lambda a: a[:, :, 1:]), r"as many features of audio in every section"),
        (spoil("audio", lambda a: [["?"]]), r"audio: expected an array of numbers"),
        (spoil("audio_lengths", lambda a: a[1:]), r"audio_lengths: expected 40 numbers, got 39"),
        (spoil("audio_lengths", lambda a: [*a[:-1], 31]), r"train\$_\$39: .* 0 to 30, .* got 31"),
        (spoil("audio_lengths", lambda a: [-1, *a[1:]]), r"sample train\$_\$0: .* got -1"),
        (spoil("audio_lengths", lambda a: [NAN, *a[1:]]), r"sample train\$_\$0: .* got nan"),
        (lambda v: v.pop("regression_labels"), r"expected 'regression_labels' or 'labels'"),
        (spoil("regression_labels", lambda a: a[:, None] @ a[None]), r"one number a sample"),
        (spoil("regression_labels", lambda a: a * NAN), r"expected finite numbers, row 0"),
        (spoil("id", lambda a: a[1:]), r"train, id: expected 40 names as labels, got 39"),
    ],
)
def test_what_does_not_fit_is_refused(layout, read, change, text):
    change(layout["train"])
    with pytest.raises(ValueError, match=text):
        read(layout)


def test_a_section_without_any_content_is_refused(layout, read):
    for name in FEATURE_MODALITIES:
        layout["valid"][name][:] = 0
    with pytest.raises(ValueError, match="valid: expected samples, got none that has any modality"):
        read(layout)


def test_modalities_are_lost_for_good_and_never_all(layout, read):
    section = read(layout)["train"]
    thin = lose_modalities(section, 0.5, seed=3)
    assert torch.equal(thin.present, lose_modalities(section, 0.5, seed=3).present)
    assert not torch.equal(thin.present, lose_modalities(section, 0.5, seed=4).present)
    assert bool(thin.present.any(1).all())
    assert 0.3 < float(thin.present.float().mean()) < 0.7
    assert torch.equal(lose_modalities(section, 0, seed=3).present, section.present)
    assert lose_modalities(section, 1, seed=3).present.sum(1).tolist() == [1] * 40
    # What a sample keeps depends on its name, not on the others.
    rows = torch.tensor([7, 2])
    assert torch.equal(lose_modalities(section.take(rows), 0.5, seed=3).present, thin.present[rows])
    with pytest.raises(ValueError, match="a number from 0 to 1, got 2"):
        lose_modalities(section, 2, seed=3)


def test_the_scale_is_that_of_the_training_frames_that_count(layout, read):
    layout["train"]["audio"][:, :, 4] = 7  # constant: only shifted
    sections = read(layout)
    sections["train"] = lose_modalities(sections["train"], 0.5, seed=0)
    scaled = standardise(sections)
    for name in FEATURE_MODALITIES:
        frames = scaled["train"].frames[name]
        valid = scaled["train"].valid[name]
        deviation = frames[valid].double().std(0, correction=0)
        expected = torch.ones(frames.shape[2]).double()
        if name == "audio":
            expected[4] = 0
        torch.testing.assert_close(deviation, expected, atol=1e-5, rtol=0)
        assert float(frames[valid].double().mean(0).abs().max()) < 1e-5
        assert not frames[~valid].any()
    raw, done = (some["test"].frames["vision"][0, 0] for some in (sections, scaled))
    seen = sections["train"].frames["vision"][sections["train"].valid["vision"]]
    torch.testing.assert_close(done, (raw - seen.mean(0)) / seen.std(0, correction=0))


def test_a_modality_that_training_lacks_is_refused(layout, read):
    layout["train"]["vision"][:] = 0
    with pytest.raises(ValueError, match="expected training samples with vision, got none"):
        standardise(read(layout))
