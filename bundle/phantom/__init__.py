"""The made-up data set: heads, tumours and their contrasts, written as the real releases are."""
