"""Losses that MONAI lacks: distillation, distributions, rebuilding."""
