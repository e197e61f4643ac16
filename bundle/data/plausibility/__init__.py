"""Cheap rules that say what is odd about a readable case: it is warned of, never refused."""
