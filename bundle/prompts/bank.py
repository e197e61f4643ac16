"""One text per modality subset, and one embedding per text, from which a network personalises.

The embeddings are made once (`python -m bundle prompts`, by CLIP in `bundle/prompts/clip.py`),
written to a file with where they came from, and kept inside the network from then on: whoever
trains or uses it needs neither CLIP nor a connection. Source: design.md section 1.1; the
wording of the prompts is our reading of arXiv 2406.01987, whose own are not public.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.linalg import helmert
from torch import Tensor

from bundle.atomic import written_atomically
from bundle.modalities import Subset, check_known, check_modalities
from bundle.training.files import read_checkpoint

logger = logging.getLogger(__name__)

SOURCES = ("file", "random", "one_hot", "presence")

# As radiologists write them; a modality that is not listed goes by its own name.
LONG_NAMES = {
    "t1": "T1-weighted",
    "t1ce": "contrast-enhanced T1",
    "t2": "T2-weighted",
    "flair": "FLAIR",
}
# That of CLIP ViT-B-32. Another size would change the file and the memory in training, no result.
_RANDOM_SIZE = 512


def subsets_by_code(modalities: Sequence[str]) -> list[Subset]:
    """List the S = 2^M - 1 non-empty subsets by their `bundle.modalities.subset_code`, 1 to S.

    Subset k, at index k - 1, holds modality i where bit i of k is set.
    """
    return [
        tuple(name for i, name in enumerate(modalities) if code >> i & 1)
        for code in range(1, 2 ** len(modalities))
    ]


def prompt_text(subset: Iterable[str], modalities: Sequence[str]) -> str:
    """Say in a sentence which modalities are available and which are missing.

    Example: `prompt_text(("t1", "flair"), BRATS_MODALITIES)` is 'MRI of a brain tumour: T1-weighted
    and FLAIR are available; contrast-enhanced T1 and T2-weighted are missing.'

    Raises:
        ValueError: an empty subset, or a name outside the vocabulary.
    """
    here = set(subset)
    check_known(here, modalities, f"subset {sorted(here)}")
    if not here:
        raise ValueError(f"expected at least one of {list(modalities)}, got an empty subset")
    clauses = [_clause([name for name in modalities if name in here], "available")]
    missing = [name for name in modalities if name not in here]
    if missing:
        clauses.append(_clause(missing, "missing"))
    return f"MRI of a brain tumour: {'; '.join(clauses)}."


def _clause(names: Sequence[str], state: str) -> str:
    *first, last = [LONG_NAMES.get(name, name) for name in names]
    return f"{', '.join(first)} and {last} are {state}" if first else f"{last} is {state}"


@dataclass(frozen=True, eq=False)
class PromptBank:
    """One embedding for each modality subset, and where they came from.

    Args:
        embeddings: (S, E) float32 in bit-code order: row k - 1 belongs to the subset whose
            presence bits, of which modality i contributes 2^i, sum to k (`subset_code`).
        provenance: what JSON can hold: `source` (clip, random, one_hot or presence), `modalities`,
            `sha256` of the embeddings' bytes; for clip `model`, `pretrained` (a tag, or a file's
            name), `weights_sha256`, `open_clip` (version) and `prompts`; for random `seed`.

    Raises:
        ValueError: not S rows for these modalities, not float32, or not finite.
    """

    embeddings: Tensor
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        modalities = self.provenance["modalities"]
        size = 2 ** len(modalities) - 1
        x = self.embeddings
        if x.ndim != 2 or len(x) != size or x.dtype != torch.float32 or not x.isfinite().all():
            raise ValueError(
                f"expected {size} finite float32 embeddings, one for each subset of "
                f"{list(modalities)}, got {tuple(x.shape)} {x.dtype}. Make the prompt bank again."
            )

    def coordinates(self) -> Tensor:
        """Place the S subsets in S - 1 dimensions, their mean at 0 and at mean distance 1 from it.

        Raw CLIP embeddings of such similar prompts have cosines about 0.98: they share nearly
        everything. Their mean is therefore subtracted and the rest enlarged. S points around their
        mean span at most S - 1 dimensions, so nothing is lost, and a network's shape does not
        depend on E.

        The axes are those of the symmetric root of the Gram matrix, in Helmert's basis of the
        vectors that sum to 0. Principal axes would do the same but are arbitrary where variances
        are equal, as they are for random and one-hot embeddings: two sites could get other numbers.

        Returns:
            (S, S - 1) float32 whose distances are those of `embeddings` times one factor.

        Raises:
            ValueError: all embeddings are equal.
        """
        x = self.embeddings.double()
        centred = x - x.mean(0)
        scale = centred.norm(dim=1).mean()
        if scale <= 1e-6 * x.norm(dim=1).mean():
            raise ValueError(
                "all prompt embeddings are equal: nothing tells the subsets apart. Make the prompt "
                "bank again, with other weights or another source."
            )
        axes, lengths, _ = torch.linalg.svd(centred / scale, full_matrices=False)
        basis = torch.from_numpy(helmert(len(x))).T
        return ((axes * lengths) @ (axes.T @ basis)).float()

    def describe(self) -> str:
        """Lay out size, provenance and, for CLIP, how similar the prompts came out, as lines."""
        rows, columns = self.embeddings.shape
        lines = [f"embeddings: {rows} subsets x {columns}"]
        for name, value in self.provenance.items():
            shown = f"{len(value)}, such as {value[0]!r}" if name == "prompts" else value
            lines.append(f"{name}: {shown}")
        if self.provenance["source"] == "clip":
            unit = torch.nn.functional.normalize(self.embeddings.double(), dim=1)
            i, j = torch.triu_indices(rows, rows, offset=1)
            cosines = (unit @ unit.T)[i, j]
            lines.append(f"pairwise cosines: {cosines.min():.4f} to {cosines.max():.4f}")
        return "\n".join(lines)


def build_bank(
    embeddings: Tensor, modalities: Sequence[str], source: str, **details: Any
) -> PromptBank:
    """Join embeddings (S, E), stored as float32, with their provenance and checksum."""
    rows = embeddings.detach().cpu().float().contiguous()
    known = {"source": source, "modalities": list(modalities)}
    return PromptBank(rows, {**known, **details, "sha256": _checksum(rows)})


def prompt_bank(
    modalities: Sequence[str],
    source: str | None = None,
    file: str | None = None,
    seed: int = 0,
) -> PromptBank:
    """Read a prompt bank, or make one without CLIP.

    Args:
        modalities: 2 to 8 names, in the network's order.
        source: `file` = what `python -m bundle prompts` wrote; `random` = orthogonal embeddings
            that no text went into; `one_hot` = the identity; `presence` = the M bits themselves,
            so that subsets with shared modalities are close. None = `file` if one is given, else
            `presence`.
        file: the file for `file`, and for no other source.
        seed: of `random`.

    Raises:
        ValueError: an unknown source, a file without its source or the other way round, or errors
            as in `load_prompt_bank`; a file made for other modalities or another order of them.
        FileNotFoundError: no such file.
    """
    names = check_modalities(modalities)
    source = source or ("file" if file else "presence")
    if source not in SOURCES:
        raise ValueError(
            f"prompt source: expected one of {list(SOURCES)}, got {source!r}. For CLIP embeddings "
            f"run `{_command(names)}` once and give that FILE with the source 'file'."
        )
    if (source == "file") != bool(file):
        raise ValueError(
            f"prompt source {source!r} with the file {file!r}: expected a file with the source "
            f"'file' and with no other. Change one of the two; `{_command(names)}` writes a file."
        )
    bank = _read_for(names, str(file)) if source == "file" else _make(names, source, seed)
    _announce(bank)
    return bank


def _make(names: tuple[str, ...], source: str, seed: int) -> PromptBank:
    size = 2 ** len(names) - 1
    if source == "one_hot":
        return build_bank(torch.eye(size), names, source)
    if source == "presence":
        bits = [[name in subset for name in names] for subset in subsets_by_code(names)]
        return build_bank(torch.tensor(bits), names, source)
    # In double precision, so that machines whose last bits differ agree after rounding.
    rows = torch.empty(size, _RANDOM_SIZE, dtype=torch.float64)
    torch.nn.init.orthogonal_(rows, generator=torch.Generator().manual_seed(seed))
    return build_bank(rows, names, source, seed=seed)


def _announce(bank: PromptBank) -> None:
    known = bank.provenance
    if known["source"] == "clip":
        names = ("source", "model", "pretrained", "sha256")
        logger.info("prompt embeddings: " + ", ".join(str(known[n]) for n in names if n in known))
        return
    what = {
        "random": f"RANDOM (seed {known.get('seed')})",
        "one_hot": "one-hot vectors",
        "presence": "presence bits",
    }[known["source"]]
    logger.warning(
        f"the prompt embeddings are {what}, NOT CLIP: no text went into them. "
        f"For CLIP ones run `{_command(known['modalities'])}` and give that FILE."
    )


def save_prompt_bank(bank: PromptBank, path: str | Path) -> None:
    """Write a prompt bank: tensors and text only, so that reading it runs no code.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is full.
    """
    with written_atomically(path) as file:
        torch.save({"embeddings": bank.embeddings, "provenance": json.dumps(bank.provenance)}, file)


def load_prompt_bank(path: str | Path) -> PromptBank:
    """Read what `save_prompt_bank` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or something else, or its embeddings are not those that its
            checksum was made from.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a prompt bank in {path}, found no such file. Write it with "
            f"`python -m bundle prompts {path}`, or correct the path."
        )
    remedy = "Copy it again, or write it anew with `python -m bundle prompts`."
    try:
        content = read_checkpoint(path, "cpu")
        bank = PromptBank(content["embeddings"], json.loads(content["provenance"]))
        checksum = bank.provenance["sha256"]
    except Exception as error:  # damaged bytes raise nearly anything, missing keys KeyError
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
        raise ValueError(f"{path} cannot be read as a prompt bank ({reason}). {remedy}") from error
    if checksum != _checksum(bank.embeddings):
        raise ValueError(f"{path}: the embeddings do not match their own checksum. {remedy}")
    return bank


def _read_for(names: tuple[str, ...], file: str) -> PromptBank:
    bank = load_prompt_bank(file)
    held = bank.provenance["modalities"]
    if held != list(names):
        raise ValueError(
            f"{file} was made for the modalities {held}, this config has {list(names)} (their "
            f"order counts). Make one that fits with `{_command(names)}`."
        )
    return bank


def _command(modalities: Sequence[str]) -> str:
    return f"python -m bundle prompts FILE --modalities {','.join(modalities)}"


def _checksum(embeddings: Tensor) -> str:
    return hashlib.sha256(embeddings.numpy().tobytes()).hexdigest()
