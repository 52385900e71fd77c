"""Segmentation of biomedical images steered by metadata (MONAI, PyTorch)."""

__version__ = "0.1.0"
