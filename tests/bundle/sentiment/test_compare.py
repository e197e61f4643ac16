from __future__ import annotations

import csv
import functools
from dataclasses import astuple

import pytest
import torch

from bundle.evaluation.tables import write_csv
from bundle.sentiment import compare as features
from bundle.sentiment.compare import (
    CONSTANT,
    compare,
    comparison_table,
    make_batch,
    score_subsets,
    train,
)
from bundle.sentiment.files import load_layout
from bundle.sentiment.network import FeatureRegressor
from bundle.sentiment.phantom import make_feature_phantom, write_feature_phantom
from bundle.sentiment.scores import RegressionScore
from bundle.sentiment.sequences import lose_modalities, read_features, standardise

SUBSETS = [
    *("text", "audio", "vision", "text+audio", "text+vision", "audio+vision"),
    "text+audio+vision",
]
SAMPLES = {"train": 320, "valid": 60, "test": 150}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "unaligned_50.npz"
    write_feature_phantom(path, SAMPLES)
    return path


@pytest.fixture(scope="module")
def outcome(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outcome")
    return compare(folder, file, ratio=0.4, epochs=12), folder


@pytest.fixture
def sections(file):
    sections = read_features(file)
    sections["train"] = lose_modalities(sections["train"], 0.4, 0)
    return standardise(sections)


def test_all_seven_subsets_are_reported_for_both_trainings(outcome):
    scores, folder = outcome
    assert list(scores) == [CONSTANT, "decoupled", "plain"]
    for training in ("decoupled", "plain"):
        assert [score.subset for score in scores[training]] == SUBSETS
        assert all(score.cases == 150 for score in scores[training])
    lines = (folder / "table.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        *SUBSETS,
        "mean",
        "nothing: the mean label",
    ]
    assert f"{scores['plain'][0].mae:.3f}" in lines[2]


def test_both_trainings_beat_the_mean_label_with_all_modalities(outcome):
    scores, _ = outcome
    guess = scores[CONSTANT][0].mae
    for training in ("decoupled", "plain"):
        of_subset = {score.subset: score for score in scores[training]}
        assert of_subset["text+audio+vision"].mae < 0.85 * guess
        assert of_subset["text+audio+vision"].correlation > 0.6
        # The text tells most, and everything tells more.
        assert of_subset["text"].correlation > of_subset["vision"].correlation
        assert of_subset["text+audio+vision"].correlation > of_subset["text"].correlation


def test_the_two_trainings_differ(outcome):
    scores, _ = outcome
    assert scores["decoupled"] != scores["plain"]


def test_the_csv_file_holds_every_number(outcome):
    scores, folder = outcome
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 + 2 * 7
    read = [
        (row.pop("training"), row.pop("subset"), *[float(value) for value in row.values()])
        for row in rows
    ]
    assert read == [astuple(score) for some in scores.values() for score in some]


def test_training_again_gives_the_same_weights(sections):
    one, same, other = (
        train(sections, True, 1, seed, "").network.state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_the_weights_of_the_best_epoch_are_kept(sections, monkeypatch):
    errors, weights = [3.0, 1.0, 2.0], []

    def scripted(network, samples):
        assert samples is sections["valid"]
        weights.append({key: value.clone() for key, value in network.state_dict().items()})
        return [RegressionScore("", "text", 1, errors[len(weights) - 1], 0.0, 0.0, 0.0)]

    monkeypatch.setattr(features, "score_subsets", scripted)
    kept = train(sections, False, 3, 0, "").network
    assert not kept.training
    assert [
        all(torch.equal(value, epoch[key]) for key, value in kept.state_dict().items())
        for epoch in weights
    ] == [False, True, False]


def test_a_subset_is_scored_over_those_who_can_form_it(sections):
    network = FeatureRegressor({name: x.shape[2] for name, x in sections["test"].frames.items()})
    thin = lose_modalities(sections["test"], 0.5, 0)
    scores = score_subsets(network, thin)
    assert scores[3].cases == int(thin.present[:, :2].all(1).sum()) < 150
    batch = make_batch(thin, thin.present[:, :2].all(1).nonzero().flatten().tolist())
    with torch.inference_mode():
        codes = network.encode(batch["frames"], batch["valid"], batch["present"])
        error = (network.decode([codes["text"], codes["audio"]]) - batch["label"]).abs().mean()
    assert scores[3].mae == pytest.approx(float(error), abs=1e-6)


def test_a_subset_that_nobody_can_form_is_a_dash_or_an_empty_cell(sections, tmp_path):
    network = FeatureRegressor({name: x.shape[2] for name, x in sections["test"].frames.items()})
    alone = lose_modalities(sections["test"], 1, 0)
    some = score_subsets(network, alone, "plain")
    assert [score.cases > 0 for score in some] == [True] * 3 + [False] * 4
    scores = {CONSTANT: some[:1], "decoupled": some, "plain": some}
    lines = comparison_table(scores).splitlines()
    assert lines[8].count("\N{EN DASH}") == 8
    assert "nan" not in "\n".join(lines)
    write_csv(some, tmp_path / "scores.csv", RegressionScore)
    assert "plain,text+audio+vision,0,,,," in (tmp_path / "scores.csv").read_text()


def test_without_a_file_a_set_is_made_up_and_read(tmp_path, monkeypatch, capsys):
    few = {"train": 40, "valid": 5, "test": 10}
    make = functools.partial(features.write_feature_phantom, samples=few)
    monkeypatch.setattr(features, "write_feature_phantom", make)
    compare(tmp_path, epochs=1, seed=4)
    content = load_layout(tmp_path / "features.npz")
    assert (content["test"]["text"] == make_feature_phantom(few, 4)["test"]["text"]).all()
    out = capsys.readouterr().out
    assert f"features: {tmp_path / 'features.npz'}\ntrain: 40 samples (text " in out
    assert "test: 10 samples (text 10, audio 10, vision 10)" in out
    assert "pairs of subsets whose gradients were in conflict: " in out


def test_no_epochs_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="epochs: expected at least 1, got 0"):
        compare(tmp_path / "new", epochs=0)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_loss_that_is_not_finite_stops_the_training(sections, value):
    sections["train"].labels[5] = value
    with pytest.raises(FloatingPointError, match=r"epoch 1; samples of the batch: .*train\$_\$5"):
        train(sections, False, 1, 0, "")
