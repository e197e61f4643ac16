"""The made-up data set: heads, tumours and their contrasts, written as the real releases are."""

# Of the pre-training: a crop of 32 voxels a side has 64 patches of 8 to hide, and 512 of 4 to
# describe.
PRETRAINING_PATCHES = {"patch": 8, "descriptor_patch": 4}
