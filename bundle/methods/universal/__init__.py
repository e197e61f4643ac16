"""The universal model: pre-training, distribution approximation, co-distillation.

Read in this order: `bundle.networks.universal` (the network), `pretraining` (stage 1) with
`distribution` (what supervises scans that were never taken), then `codistillation` (stage 2).
"""
