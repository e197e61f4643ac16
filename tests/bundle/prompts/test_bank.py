from __future__ import annotations

import json
import logging

import pytest
import torch

from bundle.modalities import BRATS_MODALITIES, presence, subset_code
from bundle.prompts.bank import (
    PromptBank,
    build_bank,
    load_prompt_bank,
    prompt_bank,
    prompt_text,
    save_prompt_bank,
    subsets_by_code,
)

NAMES = ("t1", "t1ce", "t2", "flair")


def similar_bank(modalities: int, size: int) -> PromptBank:
    """Embeddings of length 1 that share nearly all they hold, as CLIP's of such prompts do."""
    generator = torch.Generator().manual_seed(modalities)
    rows = 2**modalities - 1
    shared = torch.nn.functional.normalize(torch.randn(size, generator=generator), dim=0)
    own = torch.randn(rows, size, generator=generator) / size**0.5
    embeddings = torch.nn.functional.normalize(shared + 0.14 * own, dim=1)
    return build_bank(embeddings, NAMES[:modalities], "clip", prompts=["a text"] * rows)


@pytest.mark.parametrize(
    ("subset", "text"),
    [
        (
            ("flair", "t1"),
            "MRI of a brain tumour: T1-weighted and FLAIR are available; "
            "contrast-enhanced T1 and T2-weighted are missing.",
        ),
        (
            ("t2",),
            "MRI of a brain tumour: T2-weighted is available; "
            "T1-weighted, contrast-enhanced T1 and FLAIR are missing.",
        ),
        (
            ("t1", "t1ce", "flair"),
            "MRI of a brain tumour: T1-weighted, contrast-enhanced T1 and FLAIR are available; "
            "T2-weighted is missing.",
        ),
        (
            BRATS_MODALITIES,
            "MRI of a brain tumour: T1-weighted, contrast-enhanced T1, T2-weighted and FLAIR "
            "are available.",
        ),
    ],
)
def test_a_prompt_says_what_is_there_and_what_is_not(subset, text):
    assert prompt_text(subset, BRATS_MODALITIES) == text


def test_an_unknown_modality_goes_by_its_own_name():
    text = "MRI of a brain tumour: adc is available; T1-weighted is missing."
    assert prompt_text(["adc"], ("t1", "adc")) == text


def test_a_prompt_needs_a_subset_of_the_vocabulary():
    with pytest.raises(ValueError, match=r"at least one of \['t1', 'adc'\], got an empty subset"):
        prompt_text([], ("t1", "adc"))
    with pytest.raises(ValueError, match=r"unknown modality 't2'"):
        prompt_text(["t2"], ("t1", "adc"))


def test_row_k_minus_1_belongs_to_the_subset_of_code_k():
    subsets = subsets_by_code(BRATS_MODALITIES)
    present = torch.stack([presence(subset, BRATS_MODALITIES) for subset in subsets])
    assert subset_code(present).tolist() == list(range(1, 16))
    assert torch.equal(prompt_bank(NAMES, "presence").embeddings, present.float())


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("source", ["similar", "few", "random", "one_hot", "presence"])
def test_coordinates_keep_all_distances_whatever_the_embedding(source, modalities):
    if source in ("similar", "few"):
        bank = similar_bank(modalities, 512 if source == "similar" else 2)
    else:
        bank = prompt_bank(NAMES[:modalities], source)
    rows = 2**modalities - 1
    points = bank.coordinates()
    assert points.shape == (rows, rows - 1)
    assert points.dtype == torch.float32
    ratios = torch.pdist(points.double()) / torch.pdist(bank.embeddings.double())
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios), rtol=1e-6, atol=0)
    torch.testing.assert_close(points.mean(0), torch.zeros(rows - 1), rtol=0, atol=1e-6)
    torch.testing.assert_close(points.norm(dim=1).mean(), torch.tensor(1.0))
    assert torch.equal(points, bank.coordinates())


@pytest.mark.parametrize("source", ["random", "one_hot", "presence"])
def test_coordinates_do_not_hang_on_the_axes_even_where_variances_are_equal(source):
    bank = prompt_bank(BRATS_MODALITIES, source)
    x = bank.embeddings.double()
    noise = torch.randn(x.shape[1], x.shape[1], generator=torch.Generator().manual_seed(0))
    turned = build_bank(3 * x @ torch.linalg.qr(noise.double())[0] + 1, NAMES, source)
    torch.testing.assert_close(turned.coordinates(), bank.coordinates(), rtol=0, atol=2e-6)


def test_similar_embeddings_come_apart():
    bank = similar_bank(4, 512)
    shown = bank.describe().splitlines()[-1]
    low, high = (float(word) for word in shown.removeprefix("pairwise cosines: ").split(" to "))
    cosines = torch.nn.functional.cosine_similarity(
        bank.embeddings[:, None], bank.embeddings[None], dim=2
    )[~torch.eye(15, dtype=torch.bool)]
    assert (low, high) == pytest.approx((float(cosines.min()), float(cosines.max())), abs=6e-5)
    assert low > 0.97
    points = torch.nn.functional.normalize(bank.coordinates(), dim=1)
    assert float((points @ points.T).fill_diagonal_(-1).max()) < 0.3


def test_equal_embeddings_have_no_coordinates():
    bank = build_bank(torch.ones(3, 8), ("t1", "t2"), "clip")
    with pytest.raises(ValueError, match="all prompt embeddings are equal"):
        bank.coordinates()
    with pytest.raises(ValueError, match="all prompt embeddings are equal"):
        build_bank(torch.zeros(3, 8), ("t1", "t2"), "clip").coordinates()


def test_random_embeddings_are_orthonormal_seeded_and_said_not_to_be_clip(caplog):
    bank = prompt_bank(BRATS_MODALITIES, "random", seed=3)
    assert bank.embeddings.shape == (15, 512)
    torch.testing.assert_close(
        bank.embeddings @ bank.embeddings.T, torch.eye(15), rtol=0, atol=1e-6
    )
    assert torch.equal(bank.embeddings, prompt_bank(NAMES, "random", seed=3).embeddings)
    assert not torch.equal(bank.embeddings, prompt_bank(NAMES, "random", seed=4).embeddings)
    assert (bank.provenance["source"], bank.provenance["seed"]) == ("random", 3)
    assert caplog.records[0].levelno == logging.WARNING
    assert "RANDOM (seed 3), NOT CLIP" in caplog.text
    assert "python -m bundle prompts FILE --modalities t1,t1ce,t2,flair" in caplog.text


def test_one_hot_is_the_identity(caplog):
    bank = prompt_bank(("t1", "t2"), "one_hot")
    assert torch.equal(bank.embeddings, torch.eye(3))
    assert "one-hot vectors, NOT CLIP" in caplog.text


def test_without_a_file_the_prompts_are_the_presence_bits_and_said_not_to_be_clip(caplog):
    assert prompt_bank(BRATS_MODALITIES).provenance["source"] == "presence"
    assert "presence bits, NOT CLIP" in caplog.text


def test_random_and_one_hot_banks_are_one_bank_turned_in_space():
    random, one_hot = (prompt_bank(NAMES, source).coordinates() for source in ("random", "one_hot"))
    torch.testing.assert_close(random, one_hot, rtol=0, atol=1e-5)


def test_a_bank_comes_back_from_its_file_as_it_was(tmp_path, caplog):
    path = tmp_path / "new" / "prompts.pt"
    bank = similar_bank(4, 16)
    save_prompt_bank(bank, path)
    with caplog.at_level(logging.INFO):
        again = prompt_bank(BRATS_MODALITIES, file=str(path))
    assert torch.equal(again.embeddings, bank.embeddings)
    assert again.provenance == bank.provenance
    assert list(path.parent.iterdir()) == [path]
    assert f"prompt embeddings: clip, {bank.provenance['sha256']}" in caplog.text


def test_random_embeddings_are_said_not_to_be_clip_from_a_file_too(tmp_path, caplog):
    save_prompt_bank(prompt_bank(("t1", "t2"), "random"), tmp_path / "prompts.pt")
    caplog.clear()
    prompt_bank(("t1", "t2"), "file", str(tmp_path / "prompts.pt"))
    assert "NOT CLIP" in caplog.text


@pytest.mark.parametrize("other", [("flair", "t2", "t1ce", "t1"), ("t1", "t2"), ("a", "b", "c")])
def test_a_file_for_other_modalities_or_another_order_is_refused(tmp_path, other):
    save_prompt_bank(similar_bank(4, 16), tmp_path / "prompts.pt")
    with pytest.raises(ValueError, match=r"made for the modalities \['t1', 't1ce'") as refused:
        prompt_bank(other, file=str(tmp_path / "prompts.pt"))
    assert f"this config has {list(other)}" in str(refused.value)
    assert f"python -m bundle prompts FILE --modalities {','.join(other)}" in str(refused.value)


@pytest.mark.parametrize("source", ["random", "one_hot", "presence"])
def test_a_file_beside_another_source_is_refused(source):
    with pytest.raises(ValueError, match=f"prompt source '{source}' with the file 'x.pt'"):
        prompt_bank(NAMES, source, "x.pt")


def test_the_source_file_needs_a_file():
    with pytest.raises(ValueError, match=r"prompt source 'file' with the file None"):
        prompt_bank(NAMES, "file")


@pytest.mark.parametrize("source", ["clip", "rnadom"])
def test_an_unknown_source_is_refused_with_the_way_to_clip(source):
    with pytest.raises(ValueError, match=rf"\['file', 'random', .*got '{source}'.*bundle prompts"):
        prompt_bank(NAMES, source)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"prompt bank in .*none\.pt, found no such file"):
        load_prompt_bank(tmp_path / "none.pt")


@pytest.mark.parametrize("keep", [0, 100, 2000, -1])
def test_a_file_cut_short_is_refused(tmp_path, keep):
    path = tmp_path / "prompts.pt"
    save_prompt_bank(similar_bank(4, 16), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"prompts\.pt cannot be read as a prompt bank"):
        load_prompt_bank(path)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"weight": torch.ones(3)},
        {"embeddings": torch.ones(3, 2), "provenance": "not JSON"},
        {"embeddings": torch.ones(3, 2), "provenance": "[]"},
        {"embeddings": "text", "provenance": '{"modalities": ["a", "b"]}'},
        {"embeddings": torch.ones(4, 2), "provenance": '{"modalities": ["a", "b"]}'},
        {"embeddings": torch.ones(3, 2), "provenance": '{"modalities": ["a", "b"]}'},
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "prompts.pt")
    with pytest.raises(ValueError, match=r"prompts\.pt cannot be read as a prompt bank"):
        load_prompt_bank(tmp_path / "prompts.pt")


def test_embeddings_that_were_changed_do_not_pass(tmp_path):
    bank = similar_bank(2, 4)
    other = bank.embeddings.clone()
    other[0, 0] += 1e-6
    save_prompt_bank(PromptBank(other, bank.provenance), tmp_path / "prompts.pt")
    with pytest.raises(ValueError, match=r"do not match their own checksum"):
        load_prompt_bank(tmp_path / "prompts.pt")


@pytest.mark.parametrize(
    "embeddings", [torch.ones(4, 2), torch.ones(3), torch.full((3, 2), torch.nan)]
)
def test_a_bank_has_one_finite_row_for_each_subset(embeddings):
    with pytest.raises(ValueError, match=r"expected 3 finite float32 embeddings"):
        build_bank(embeddings, ("t1", "t2"), "clip")


def test_the_provenance_is_json_and_described_in_a_few_lines():
    bank = prompt_bank(("t1", "t2"), "random", seed=7)
    assert json.loads(json.dumps(bank.provenance)) == bank.provenance
    assert bank.describe().splitlines()[:4] == [
        "embeddings: 3 subsets x 512",
        "source: random",
        "modalities: ['t1', 't2']",
        "seed: 7",
    ]
