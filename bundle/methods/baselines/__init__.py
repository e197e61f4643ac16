"""Baselines: random dropping of modalities, and one network per subset."""
