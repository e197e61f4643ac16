"""Scores of every modality subset, and their tables and pictures."""
