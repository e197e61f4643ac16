from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from bundle.__main__ import main
from bundle.modalities import BRATS_MODALITIES
from bundle.prompts.bank import load_prompt_bank, prompt_text
from bundle.prompts.clip import clip_prompt_bank, encode_prompts

# A real CLIP but for its size: open_clip's own tokeniser, text tower and projection.
TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
TAGS = {"good": {"hf_hub": "someone/tiny/"}, "quick": {"hf_hub": "x/quick/", "quick_gelu": True}}
TEXTS = [
    "MRI of a brain tumour: T1-weighted is available; T2-weighted is missing.",
    "MRI of a brain tumour: T2-weighted is available; T1-weighted is missing.",
    "MRI of a brain tumour: T1-weighted and T2-weighted are available.",
]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Make 'tiny' an architecture of open_clip's, with tags, and let nothing be fetched."""

    def refuse(repo_id, filename, **_):
        raise OSError(f"no connection to {repo_id}")

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", TAGS)
    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", refuse)


def build(seed: int, **changes) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return open_clip.create_model("tiny", **changes).eval()


def write_weights(path: Path, model: torch.nn.Module) -> Path:
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return path


def encode(model: torch.nn.Module, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return model.encode_text(open_clip.get_tokenizer("tiny")(texts), normalize=True)


@pytest.mark.parametrize("name", ["weights.pt", "weights.bin", "weights.safetensors"])
def test_a_weight_file_gives_exactly_its_models_embeddings(tmp_path, name):
    model = build(seed=1)
    path = write_weights(tmp_path / name, model)
    bank = clip_prompt_bank(("t1", "t2"), "tiny", str(path))
    assert torch.equal(bank.embeddings, encode(model, TEXTS))
    assert bank.embeddings.shape == (3, 8)
    torch.testing.assert_close(bank.embeddings.norm(dim=1), torch.ones(3))
    assert not torch.allclose(bank.embeddings, encode(build(seed=2), TEXTS), atol=0.01)
    assert bank.provenance == {
        "source": "clip",
        "modalities": ["t1", "t2"],
        "model": "tiny",
        "pretrained": name,
        "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "open_clip": open_clip.__version__,
        "prompts": TEXTS,
        "sha256": hashlib.sha256(bank.embeddings.numpy().tobytes()).hexdigest(),
    }


def test_every_subset_gets_an_embedding_of_its_own(tmp_path):
    path = write_weights(tmp_path / "w.pt", build(seed=1))
    bank = clip_prompt_bank(BRATS_MODALITIES, "tiny", str(path))
    assert bank.embeddings.shape == (15, 8)
    assert float(torch.pdist(bank.embeddings).min()) > 1e-3
    assert bank.provenance["prompts"][14] == prompt_text(BRATS_MODALITIES, BRATS_MODALITIES)


def test_encoding_leaves_no_gradient_and_draws_nothing():
    model = build(seed=1).train()
    embeddings = encode_prompts(TEXTS, model, open_clip.get_tokenizer("tiny"))
    assert not embeddings.requires_grad
    assert not model.training
    assert torch.equal(embeddings, encode(build(seed=1), TEXTS))


def test_the_end_of_a_prompt_is_never_dropped():
    tokenizer = open_clip.get_tokenizer("tiny")
    fits, too_long = " ".join(["brain"] * 75), " ".join(["brain"] * 76)
    assert encode_prompts([fits], build(1), tokenizer).shape == (1, 8)
    with pytest.raises(ValueError, match=r"longer than the 77 tokens .*brain.*shorter names"):
        encode_prompts(["short", too_long], build(1), tokenizer)


@pytest.mark.parametrize("lost", ["text_projection", "transformer.resblocks.1.ln_1.weight"])
def test_weights_that_fit_in_part_are_refused(tmp_path, lost):
    state = build(seed=1).state_dict()
    del state[lost]
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(ValueError, match=rf"part\.pt cannot be used as weights of tiny .*{lost}"):
        clip_prompt_bank(("t1", "t2"), "tiny", str(tmp_path / "part.pt"))


def test_weights_with_something_over_are_refused(tmp_path):
    torch.save(build(seed=1).state_dict() | {"more": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"cannot be used as weights of tiny .*more"):
        clip_prompt_bank(("t1", "t2"), "tiny", str(tmp_path / "w.pt"))


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_that_is_no_weights_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=rf"{name} cannot be used as weights of tiny"):
        clip_prompt_bank(("t1", "t2"), "tiny", str(tmp_path / name))


@pytest.mark.parametrize("typo", ["goood", "", "None", "nowhere/w.pt"])
def test_an_unknown_tag_is_refused_with_the_tags_there_are(typo):
    with pytest.raises(ValueError, match=rf"pretrained: '{typo}' .* tags are \['good', 'quick'\]"):
        clip_prompt_bank(("t1", "t2"), "tiny", typo)


@pytest.mark.parametrize("model", ["ViT-B32", "hf-hub:someone/tiny"])
def test_an_unknown_model_is_refused(model):
    with pytest.raises(ValueError, match=rf"open_clip's own, got '{model}'\. Correct --model"):
        clip_prompt_bank(("t1", "t2"), model, "good")


def test_a_tag_that_cannot_be_fetched_names_what_was_tried_and_the_ways_out():
    with pytest.raises(OSError, match=r"the weights 'good' of tiny from someone/tiny/ .*no conn"):
        clip_prompt_bank(("t1", "t2"), "tiny", "good")
    with pytest.raises(OSError, match=r"weight file on this machine.*--source random"):
        clip_prompt_bank(("t1", "t2"), "tiny", "good")


@pytest.mark.parametrize("tag", ["good", "quick"])
def test_a_tag_brings_its_weights_and_the_activation_they_were_trained_with(
    tmp_path, monkeypatch, tag
):
    # Larger weights, so that the two activations differ by more than rounding.
    with torch.no_grad():
        model = build(seed=1, force_quick_gelu=tag == "quick")
        for block in model.transformer.resblocks:
            block.mlp.c_fc.weight *= 20
    path = write_weights(tmp_path / "open_clip_model.safetensors", model)
    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", lambda **_: str(path))
    bank = clip_prompt_bank(("t1", "t2"), "tiny", tag)
    assert torch.equal(bank.embeddings, encode(model, TEXTS))
    assert bank.provenance["pretrained"] == tag
    plain = clip_prompt_bank(("t1", "t2"), "tiny", str(path))
    assert torch.equal(plain.embeddings, bank.embeddings) == (tag == "good")


def test_a_file_called_like_a_tag_is_the_file(tmp_path, monkeypatch):
    model = build(seed=1)
    torch.save(model.state_dict(), tmp_path / "good")
    monkeypatch.chdir(tmp_path)
    bank = clip_prompt_bank(("t1", "t2"), "tiny", "good")
    assert torch.equal(bank.embeddings, encode(model, TEXTS))


def test_without_open_clip_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[clip\]'.*--source random"):
        clip_prompt_bank(("t1", "t2"))


def test_the_default_weights_are_known_to_open_clip():
    model, pretrained = clip_prompt_bank.__defaults__
    assert model in open_clip.list_models()
    assert open_clip.get_pretrained_cfg(model, pretrained)


def test_the_verb_writes_what_the_function_makes(tmp_path, capsys):
    weights = write_weights(tmp_path / "w.pt", build(seed=1))
    output = tmp_path / "prompts.pt"
    arguments = ["prompts", str(output), "--model", "tiny", "--pretrained", str(weights)]
    assert main([*arguments, "--modalities", "t1,t2"]) == 0
    wanted = clip_prompt_bank(("t1", "t2"), "tiny", str(weights))
    written = load_prompt_bank(output)
    assert torch.equal(written.embeddings, wanted.embeddings)
    assert written.provenance == wanted.provenance
    printed = capsys.readouterr().out
    assert f"wrote {output}" in printed
    assert "embeddings: 3 subsets x 8" in printed
    assert f"prompts: 3, such as '{TEXTS[0]}'" in printed
    assert "pairwise cosines: 0." in printed
