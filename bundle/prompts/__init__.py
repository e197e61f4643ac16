"""One text and one embedding per modality subset, for the hypernetwork."""
