"""Prompt embeddings by CLIP's text tower; needs the extra `clip`, and its weights once.

The weights are one file, which open_clip loads completely or not at all: embeddings of random
weights must never pass as CLIP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from bundle.modalities import check_modalities
from bundle.prompts.bank import PromptBank, build_bank, prompt_text, subsets_by_code

WAYS_OUT = (
    "A weight file on this machine (.pt, .bin or .safetensors) works without a connection: give "
    "its path as --pretrained. `--source random` needs neither, but is not CLIP."
)


def clip_prompt_bank(
    modalities: Sequence[str],
    model: str = "ViT-B-32",
    pretrained: str = "laion2b_s34b_b79k",
) -> PromptBank:
    """Embed the prompt of every modality subset with a pretrained CLIP.

    Args:
        modalities: 2 to 8 names, in the network's order.
        model: one of open_clip's own architectures. A file of OpenAI's weights needs one with
            QuickGELU, such as ViT-B-32-quickgelu; a tag brings that along.
        pretrained: one of open_clip's tags for this model, fetched unless it is in the cache, or a
            weight file: .pt, .bin or .safetensors.

    Returns:
        (S, E) embeddings of length 1, E = 512 for ViT-B-32, with the provenance `clip`.

    Raises:
        ImportError: open_clip is not installed.
        ValueError: an unknown model or tag, or weights that do not fit the model in every tensor.
        OSError: the tag's weights could not be fetched.
    """
    names = check_modalities(modalities)
    open_clip = _open_clip()
    if model not in open_clip.list_models():
        raise ValueError(
            f"model: expected one of open_clip's own, got {model!r}. Correct --model; "
            "`open_clip.list_models()` names them all."
        )
    file, quick_gelu = _find_weights(open_clip, model, pretrained)
    try:
        # With `require_pretrained`, what does not fit in every tensor is refused.
        network = open_clip.create_model(
            model, pretrained=str(file), force_quick_gelu=quick_gelu, require_pretrained=True
        )
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # each format of weights and each tokenizer has errors of its own
        raise ValueError(
            f"{file} cannot be used as weights of {model} ({_brief(error)}). Give the file and the "
            "--model that belong together."
        ) from error
    texts = [prompt_text(subset, names) for subset in subsets_by_code(names)]
    return build_bank(
        encode_prompts(texts, network, tokenizer),
        names,
        "clip",
        model=model,
        # The name only: a folder would say whose machine it was.
        pretrained=file.name if Path(pretrained).is_file() else pretrained,
        weights_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        open_clip=open_clip.__version__,
        prompts=texts,
    )


def encode_prompts(
    texts: Sequence[str], model: nn.Module, tokenizer: Callable[..., Tensor]
) -> Tensor:
    """Embed texts with the text tower and projection of a CLIP that is already built.

    Args:
        texts: S sentences.
        model: has open_clip's `encode_text`; it is left in evaluation mode.
        tokenizer: the one that belongs to the model.

    Returns:
        (S, E) float32, each row of length 1.

    Raises:
        ValueError: a text is too long for the model, which would drop its end without a word.
    """
    tokens = tokenizer(texts)
    length = tokens.shape[1]
    # With room for one more token the same ones come out, unless something had been cut off.
    if not torch.equal(tokenizer(texts, context_length=length + 1)[:, :length], tokens):
        raise ValueError(
            f"a prompt is longer than the {length} tokens that the model reads: "
            f"{max(texts, key=len)!r}. Give the modalities shorter names."
        )
    model.eval()
    with torch.no_grad():
        return model.encode_text(tokens, normalize=True).float()


def _open_clip() -> ModuleType:
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(
            f"CLIP embeddings need open_clip ({error}). Install the extra with "
            "`pip install -e '.[clip]'`, or use --source random, which is not CLIP."
        ) from error
    return open_clip


def _find_weights(open_clip: ModuleType, model: str, pretrained: str) -> tuple[Path, bool]:
    """Find or fetch a weight file; True = its model was trained with QuickGELU, not with GELU."""
    if Path(pretrained).is_file():
        # Absolute, because open_clip would take a bare name that is also a tag for the tag.
        return Path(pretrained).absolute(), False
    config = open_clip.get_pretrained_cfg(model, pretrained)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise ValueError(
            f"pretrained: {pretrained!r} is neither a file nor a tag of {model}, whose tags are "
            f"{tags}. Correct --pretrained. {WAYS_OUT}"
        )
    try:
        file = Path(open_clip.download_pretrained(config))
    except Exception as error:  # whatever the client that fetches may raise
        raise OSError(
            f"could not fetch the weights {pretrained!r} of {model} from "
            f"{config.get('hf_hub') or config.get('url')} ({_brief(error)}). {WAYS_OUT}"
        ) from error
    return file, bool(config.get("quick_gelu"))


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
