"""Segmentation of one case: presence, windows, speed, and what is written beside the labels."""
