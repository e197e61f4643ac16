"""The rules, in one table: what is measured, where it becomes odd and why there, what to do.

The limits come from anatomy and from how the sequences work, with a margin for noise; the phantom
only showed that they separate (docs/data.md has the rates).

Refused where one is strict is what makes a result wrong for certain: presence, normalisation and
the box around the brain rest on a background of 0, on one outline, and on millimetres. What the
contrast hints at is not, for a tumour or a scanner may explain it. Refused always is what cannot be
true: two scans with the same voxels, and a scan with a handful of values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Rule(NamedTuple):
    """One rule.

    Attributes:
        says: what is odd, in words that follow "case X: ".
        number: what is measured, and its unit.
        limit: from where on it is odd.
        odd_above: True = odd above the limit; False = odd below it.
        reason: why the limit is there.
        advice: what to do.
        refused: "always"; "strict" = by `scan --strict` and where a config is strict; "never" = it
            is only warned of.
    """

    says: str
    number: str
    limit: float
    odd_above: bool
    reason: str
    advice: str
    refused: Literal["always", "strict", "never"] = "never"


RULES: Mapping[str, Rule] = {
    "voxel_small": Rule(
        "the voxels are very small",
        "shortest edge in mm",
        0.3,
        False,
        "scanners resolve 0.4 mm and more; a tenth of 1 mm is an error of unit",
        "Correct the spacing in the header.",
        "strict",
    ),
    "voxel_large": Rule(
        "the voxels are very large",
        "shortest edge in mm",
        3.0,
        True,
        "thick slices have 5 mm and more, but only along one axis",
        "Correct the spacing in the header.",
        "strict",
    ),
    "head_small": Rule(
        "the brain is very small",
        "longest side in mm",
        40.0,
        False,
        "between a tenth of an adult's 170 mm and an infant's 100 mm",
        "Correct the spacing in the header.",
        "strict",
    ),
    "head_large": Rule(
        "the brain is very large",
        "longest side in mm",
        320.0,
        True,
        "a whole head with its neck fits into 300 mm",
        "Correct the spacing in the header.",
        "strict",
    ),
    "background": Rule(
        "hardly any voxel is 0",
        "share of 0",
        0.25,
        False,
        "an ellipsoid leaves 48 % of its tightest box empty",
        "Strip the skull, and set all that is not brain to exactly 0.",
        "strict",
    ),
    "corners": Rule(
        "the corners of the volume are not 0",
        "share that is not 0",
        0.05,
        True,
        "no brain reaches into a corner, even of the tightest box",
        "Strip the skull, and set all that is not brain to exactly 0.",
        "strict",
    ),
    "border": Rule(
        "the volume's border is not 0, as where neck, face and ears reach it",
        "share that is not 0, at the second of three axes",
        0.3,
        True,
        "a volume cuts a brain off along one axis at most; a round brain in its tightest box "
        "touches with less than a tenth",
        "Strip the skull, and set all that is not brain to exactly 0.",
        "strict",
    ),
    "scalp": Rule(
        "a dark ring lies below the surface on every modality, as the skull below the scalp",
        "ring as a share of what is brighter on both sides, where it is least dark",
        0.5,
        False,
        "bone gives no signal, while fluid is bright on T2; a stripped brain gets brighter or "
        "darker inwards, but not both",
        "Strip the skull, and set all that is not brain to exactly 0.",
        "strict",
    ),
    "dark_ring": Rule(
        "a dark ring lies below the surface, as the skull below the scalp, or as fluid below the "
        "dura",
        "ring as a share of what is brighter on both sides",
        0.5,
        False,
        "bone gives no signal, and neither does fluid on T1 and FLAIR: T2 alone tells them apart",
        "Look at it in a viewer. Strip the skull, if it is there, and set all but brain to 0.",
    ),
    "few_voxels": Rule(
        "hardly any voxel is not 0",
        "share that is not 0",
        0.005,
        False,
        "the smallest brain fills 2 % of the largest field of view",
        "Find the right file, or drop its key: the case then counts as lacking it.",
        "strict",
    ),
    "label_as_scan": Rule(
        "it has a handful of values, as a label or a mask does",
        "values other than 0",
        8.5,
        False,
        "noise alone gives a scan hundreds of values; no label of a tumour has more than 8",
        "Find the right file, or drop its key: the case then counts as lacking it.",
        "always",
    ),
    "two_forms": Rule(
        "qform and sform of the header put it in two places; the sform is used",
        "corners apart in mm",
        0.5,
        True,
        "the rounding of a quaternion moves a corner by 0.1 mm; half a voxel can be seen",
        "Find out which one is right, and write it into both.",
        "strict",
    ),
    "masks": Rule(
        "the brain has another outline than in the other modalities",
        "Dice overlap",
        0.8,
        False,
        "two tools that strip the same skull agree to 0.95",
        "Strip the skull once, use the same mask for all modalities, and cut nothing off.",
        "strict",
    ),
    "mirrored": Rule(
        "fits every other modality better once it is mirrored",
        "gain in correlation",
        0.02,
        True,
        "folds are not symmetric, so a true pair loses; 0.02 is the noise of a correlation",
        "Compare the files in a viewer, and convert this one again.",
    ),
    "t1_order": Rule(
        "the outermost brain is brighter than its middle, as on T2",
        "quartile distances",
        0.5,
        True,
        "fluid and cortex lie outside, and both are darker than white matter on T1",
        "Check that the file holds what its name says.",
    ),
    "t2_order": Rule(
        "the outermost brain is darker than its middle, as on T1 or FLAIR",
        "quartile distances",
        -0.5,
        False,
        "fluid and cortex lie outside, and both are brighter than white matter on T2",
        "Check that the file holds what its name says.",
    ),
    "t2_flair": Rule(
        "t2 and flair seem to be swapped: fluid is darker on t2 than on flair",
        "quartile distances",
        -0.5,
        False,
        "FLAIR suppresses the fluid that is brightest on T2",
        "Swap the two files.",
    ),
    "agent_in_rim": Rule(
        "t1 and t1ce seem to be swapped: the enhancing tumour is darker on t1ce",
        "log of t1ce / t1",
        -0.1,
        False,
        "contrast agent brightens, never darkens; 10 % is more than coils differ by over a tumour",
        "Swap the two files.",
    ),
    "agent_in_brain": Rule(
        "t1 and t1ce seem to be swapped: what differs most is darker on t1ce",
        "log of t1ce / t1",
        -0.15,
        False,
        "vessels take up agent, and nothing loses signal by it",
        "Swap the two files.",
    ),
    "agent_elsewhere": Rule(
        "another part of the tumour takes up more contrast agent than the enhancing one",
        "log of t1ce / t1",
        0.1,
        True,
        "the enhancing tumour is what takes up agent; 0.1 as in agent_in_rim",
        "Check what the label values mean (BraTS: 1 necrosis, 2 oedema, 4 enhancing).",
    ),
    "rim_dark": Rule(
        "another part of the tumour is brighter on t1ce than the enhancing one",
        "quartile distances",
        0.3,
        True,
        "the enhancing tumour is drawn where t1ce is bright",
        "Check what the label values mean (BraTS: 1 necrosis, 2 oedema, 4 enhancing).",
    ),
    "necrosis_outside": Rule(
        "the necrosis lies around the oedema",
        "open surface of oedema minus that of necrosis",
        -0.3,
        False,
        "oedema surrounds the tumour, so most of what faces healthy brain is oedema",
        "Check what the label values mean: MSD has 1 oedema, 2 necrosis; BraTS the reverse.",
    ),
    "rim_outside": Rule(
        "the enhancing tumour lies around the oedema",
        "open surface of oedema minus that of the enhancing tumour",
        -0.3,
        False,
        "oedema surrounds the tumour, so most of what faces healthy brain is oedema",
        "Check what the label values mean (BraTS: 1 necrosis, 2 oedema, 4 enhancing).",
    ),
    "one_label": Rule(
        "the label has one value for the whole tumour",
        "label values",
        1.5,
        False,
        "a glioma has a core and oedema; a mask of the whole tumour has one value",
        "Give a label with all regions, or regions of your own in the config.",
    ),
    "tumour_large": Rule(
        "the tumour is very large",
        "share of the brain",
        0.4,
        True,
        "with its oedema a large glioma has 300 of a brain's 1300 ml",
        "Check that the label's background is 0.",
    ),
    "label_outside": Rule(
        "the label reaches out of the brain",
        "share outside",
        0.02,
        True,
        "a tumour is inside the brain; 2 % is a ragged edge",
        "Check that label and images belong together.",
        "strict",
    ),
    "label_moved": Rule(
        "the label fits the images better in another place",
        "fit here as a share of the best",
        0.5,
        False,
        "a true outline fits best where it was drawn; half leaves room for blurred oedema",
        "Lay the label over the images in a viewer.",
    ),
    "oedema_dark": Rule(
        "the oedema is darker on flair than healthy brain",
        "quartile distances",
        0.0,
        False,
        "oedema is drawn where FLAIR is bright",
        "Check what the label values mean, and that label and images belong together.",
    ),
    "same_file": Rule(
        "they hold the same voxels, stored alike or with another gain",
        "correlation",
        0.9995,
        True,
        "two scans never have the same noise, and noise of 3 % already leaves 0.999",
        "Find the right file for one of them, or drop its key: the case then counts as lacking it.",
        "always",
    ),
    "same_scan": Rule(
        "a scan is that of another case",
        "equal volumes",
        0.5,
        True,
        "two scans never have the same noise, so it is the same patient",
        "Keep one of the cases, or give both the same 'patient'.",
    ),
    "leak": Rule(
        "a scan is that of a case in another section, so scores would be too good",
        "equal volumes",
        0.5,
        True,
        "two scans never have the same noise, so it is the same patient",
        "Keep one of the cases, or both in one section, with the same 'patient'.",
        "always",
    ),
}


def is_odd(rule: str, measured: float) -> bool:
    """True = the number is on the odd side of the rule's limit."""
    above = measured > RULES[rule].limit
    return above if RULES[rule].odd_above else measured < RULES[rule].limit
