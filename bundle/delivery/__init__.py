"""The trained model for others: a zip, ONNX, MONAI Label."""
