"""The universal model: pre-training, distribution approximation, co-distillation."""
