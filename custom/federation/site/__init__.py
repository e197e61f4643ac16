"""One hospital: the trainer, its state, and what must not leave it."""
