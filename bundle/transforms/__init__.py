"""MONAI transforms: load the modalities of a case, drop some, turn labels into regions and back."""
