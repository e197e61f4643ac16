"""One hospital: the trainer, its state, and what it keeps to itself."""
