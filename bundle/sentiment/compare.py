"""Gradient decoupling beyond images: what the command `python -m bundle features` does."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader
from tqdm import tqdm

from bundle.atomic import write_text_atomically
from bundle.evaluation.summary import mean_of_known
from bundle.evaluation.tables import markdown, write_csv
from bundle.modalities import all_subsets, subset_name
from bundle.sentiment.method import FeatureRegression
from bundle.sentiment.network import FeatureRegressor
from bundle.sentiment.phantom import write_feature_phantom
from bundle.sentiment.scores import RegressionScore, regression_score
from bundle.sentiment.sequences import (
    FeatureSequences,
    lose_modalities,
    read_features,
    standardise,
)

FEATURES, CSV, TABLE = "features.npz", "scores.csv", "table.md"
# The same losses, steps and seed, with and without decoupling; and the answer that knows nothing.
TRAININGS: Mapping[str, bool] = {"decoupled": True, "plain": False}
CONSTANT = "the mean label"

BATCH = 32
LEARNING_RATE = 1e-3
CLIP_NORM = 5.0

# Score -> its title, its factor, its digits.
_COLUMNS: Mapping[str, tuple[str, int, int]] = {
    "mae": ("MAE", 1, 3),
    "correlation": ("r", 1, 3),
    "accuracy_2": ("Acc-2 %", 100, 1),
    "accuracy_7": ("Acc-7 %", 100, 1),
}

Scores = dict[str, list[RegressionScore]]


def compare(
    output_dir: str | Path,
    file: str | Path | None = None,
    ratio: float = 0.5,
    epochs: int = 10,
    seed: int = 0,
) -> Scores:
    """Train a regressor with and without gradient decoupling, score both on every subset, report.

    Both trainings see the same samples, which lack the same modalities for good, in the same order,
    and start from the same weights. The weights of the epoch that validates best (mean absolute
    error, mean over the subsets) are scored on the test samples as they are in the file.

    Args:
        output_dir: gets scores.csv and table.md, and features.npz where no file is given.
        file: features in the layout of `bundle.sentiment.files`; None = make a set up.
        ratio: chance, 0 to 1, that a training sample lacks a modality.
        epochs: passes over the training samples.
        seed: of the made-up set, of what is missing, of weights and order.

    Returns:
        Training -> a score for every subset; "the mean label" has one, on all test samples.

    Raises:
        FileNotFoundError: no such file.
        ValueError: `epochs` below 1, or what `read_features`, `lose_modalities` and `standardise`
            refuse.
        FloatingPointError: a training diverged.
    """
    if epochs < 1:
        raise ValueError(f"epochs: expected at least 1, got {epochs}")
    folder = Path(output_dir)
    if file is None:
        file = folder / FEATURES
        write_feature_phantom(file, seed=seed)
    sections = read_features(file)
    sections["train"] = lose_modalities(sections["train"], ratio, seed)
    sections = standardise(sections)
    test = sections["test"]
    guess = torch.full_like(test.labels, float(sections["train"].labels.mean()))
    scores = {CONSTANT: [regression_score(CONSTANT, "", guess, test.labels)]}
    notes = [_census(file, sections)]
    for name, decouple in TRAININGS.items():
        method = train(sections, decouple, epochs, seed, name)
        scores[name] = score_subsets(method.network, test, name)
        if method.pairs:
            share = 100 * method.conflicts / method.pairs
            notes.append(f"pairs of subsets whose gradients were in conflict: {share:.1f} %")
    table = comparison_table(scores)
    write_csv([score for some in scores.values() for score in some], folder / CSV, RegressionScore)
    write_text_atomically(folder / TABLE, table)
    print("\n".join([*notes, "", table, f"wrote {folder / CSV} and {folder / TABLE}"]))
    return scores


def train(
    sections: Mapping[str, FeatureSequences], decouple: bool, epochs: int, seed: int, name: str
) -> FeatureRegression:
    """Train a regressor and leave it with the weights that validated best.

    Args:
        sections: "train" and "valid", standardised.
        decouple: as in `FeatureRegression`.
        epochs: passes over the training samples.
        seed: of weights, order, and the orders of decoupling.
        name: what stands before the progress bar.

    Returns:
        The method; `network` is in evaluation mode.

    Raises:
        FloatingPointError: loss or gradient is NaN or infinite.
    """
    torch.manual_seed(seed)
    training = sections["train"]
    widths = {modality: frames.shape[2] for modality, frames in training.frames.items()}
    method = FeatureRegression(FeatureRegressor(widths), decouple)
    loader = DataLoader(
        range(len(training)),
        BATCH,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=functools.partial(make_batch, training),
    )
    optimizer = torch.optim.Adam(method.parameters(), LEARNING_RATE)
    best, weights = math.inf, method.network.state_dict()
    # Silent when the output is not a terminal.
    for epoch in tqdm(range(1, epochs + 1), name, disable=None, leave=False):
        for batch in loader:
            _step(method, optimizer, batch, epoch)
        error = mean_of_known(s.mae for s in score_subsets(method.network, sections["valid"]))
        if error is not None and error < best:
            best, weights = error, deepcopy(method.network.state_dict())
    method.network.load_state_dict(weights)
    method.eval()
    return method


def make_batch(samples: FeatureSequences, rows: Sequence[int]) -> dict[str, Any]:
    """Put samples together as `FeatureRegression.losses` takes them; `rows` are their indices."""
    taken = samples.take(torch.as_tensor(rows))
    return {
        "frames": taken.frames,
        "valid": taken.valid,
        "present": taken.present,
        "label": taken.labels,
        "case": taken.names,
    }


def _step(
    method: FeatureRegression,
    optimizer: torch.optim.Optimizer,
    batch: Mapping[str, Any],
    epoch: int,
) -> None:
    method.train()
    optimizer.zero_grad()
    losses = method.losses(batch)
    method.backward(losses)
    norm = float(clip_grad_norm_(method.parameters(), CLIP_NORM))
    loss = sum(float(term.detach()) for term in losses.values())
    if not math.isfinite(loss + norm):
        raise FloatingPointError(
            f"loss {loss:g} or norm of the gradient {norm:g} is not finite in epoch {epoch}; "
            f"samples of the batch: {', '.join(batch['case'])}. Nothing was stepped. Look at their "
            "features and labels."
        )
    optimizer.step()


@torch.inference_mode()
def score_subsets(
    network: FeatureRegressor, samples: FeatureSequences, training: str = ""
) -> list[RegressionScore]:
    """Score a network on every subset, each over the samples that have all of its modalities.

    Args:
        network: is put into evaluation mode.
        samples: standardised.
        training: what the scores are called.

    Returns:
        A score for each of the 2^M - 1 subsets, in the order of `all_subsets`.
    """
    network.eval()
    modalities = tuple(samples.frames)
    present = samples.present
    # In parts, for the sake of memory: a section may hold thousands of samples.
    parts = [samples.take(rows) for rows in torch.arange(len(samples)).split(8 * BATCH)]
    codes = [network.encode(part.frames, part.valid, part.present) for part in parts]
    whole = {name: torch.cat([part[name] for part in codes]) for name in modalities}
    scores = []
    for subset in all_subsets(modalities):
        rows = present[:, [modalities.index(name) for name in subset]].all(1)
        prediction = network.decode([whole[name][rows] for name in subset])
        name = subset_name(subset, modalities)
        scores.append(regression_score(training, name, prediction, samples.labels[rows]))
    return scores


def comparison_table(scores: Mapping[str, Sequence[RegressionScore]]) -> str:
    """Write a GitHub table: subsets and their mean down, scores across, trainings side by side.

    A dash stands for what could not be computed: nobody can form the subset, or no label has a
    sign.
    """
    trainings = [scores[name] for name in TRAININGS]
    titles = [f"{title}, {name}" for title, _, _ in _COLUMNS.values() for name in TRAININGS]
    rows = [
        [of_subset[0].subset, str(of_subset[0].cases), *_cells(map(vars, of_subset))]
        for of_subset in zip(*trainings, strict=True)
    ]
    means = [
        {key: mean_of_known(getattr(score, key) for score in some) for key in _COLUMNS}
        for some in trainings
    ]
    (constant,) = scores[CONSTANT]
    nothing = [vars(constant)] * len(trainings)
    rows.append(["mean", "", *_cells(means)])
    rows.append([f"nothing: {CONSTANT}", str(constant.cases), *_cells(nothing)])
    return markdown(["given", "cases", *titles], rows)


def _cells(of_trainings: Iterable[Mapping[str, Any]]) -> list[str]:
    found = list(of_trainings)
    return [
        "\N{EN DASH}" if value is None else f"{factor * value:.{digits}f}"
        for key, (_, factor, digits) in _COLUMNS.items()
        for value in (scores[key] for scores in found)
    ]


def _census(file: str | Path, sections: Mapping[str, FeatureSequences]) -> str:
    """Tell how many samples there are, and how many of them have each modality."""
    lines = []
    for key, section in sections.items():
        counts = zip(section.frames, section.present.sum(0).tolist(), strict=True)
        held = ", ".join(f"{name} {count}" for name, count in counts)
        lines.append(f"{key}: {len(section)} samples ({held})")
    return "\n".join([f"features: {file}", *lines])
