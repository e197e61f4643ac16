"""Refusing lists that are not those that were published, by their counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bundle.modalities import BRATS_MODALITIES
from bundle.protocols.form import Protocol
from bundle.protocols.lists import Row


def check_counts(sections: Mapping[str, Sequence[Row]], protocol: Protocol) -> None:
    """Refuse lists that are not those that were published: other counts of cases or modalities.

    A wrong order of the masks' places changes the counts too.

    Args:
        sections: section -> rows, as read; all cases of folds or sites under "training".
        protocol: whose lists they are.

    Raises:
        ValueError: a case in two sections, or another count, naming the section and both counts.
    """
    _refuse_shared(sections)
    expected: dict[str, object] = {
        f"cases in {section}": count
        for section, count in zip(sections, protocol.counts, strict=True)
    }
    found: dict[str, object] = {f"cases in {s}": len(rows) for s, rows in sections.items()}
    for section, present in protocol.present.items():
        kept = [row.kept for row in sections[section]]
        expected |= {f"{section} with {name}": count for name, count in present.items()}
        found |= {f"{section} with {m}": sum(m in each for each in kept) for m in present}
        expected[f"complete in {section}"] = protocol.complete[section]
        found[f"complete in {section}"] = sum(len(k) == len(BRATS_MODALITIES) for k in kept)
    rows = sections["training"]
    if protocol.folds:
        counts = Counter(row.fold for row in rows)
        expected["cases of the folds"] = protocol.folds
        found["cases of the folds"] = tuple(counts[fold] for fold in sorted(counts))
    if protocol.sites:
        expected["sites"], found["sites"] = protocol.sites, len({row.site for row in rows})
    wrong = [
        f"{k}: expected {expected[k]}, got {found[k]}" for k in expected if expected[k] != found[k]
    ]
    if wrong:
        raise ValueError(
            f"{protocol.name}: the lists are not those that were published: {'; '.join(wrong)}. "
            f"Give a clone of {protocol.repository} whose lists nobody has changed."
        )


def _refuse_shared(sections: Mapping[str, Sequence[Row]]) -> None:
    places: dict[str, list[str]] = {}
    for section, rows in sections.items():
        for row in rows:
            places.setdefault(row.case, []).append(section)
    shared = {case: names for case, names in places.items() if len(names) > 1}
    if shared:
        case, names = next(iter(shared.items()))
        raise ValueError(
            f"{len(shared)} case{'s' * (len(shared) > 1)} in more than one section of the lists, "
            f"first {case} in {' and '.join(names)}: scores would be too good."
        )
