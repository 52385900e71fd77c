"""Segmentation networks: `network(image, meta)` gives logits."""

from metaseg_monai.networks.unet3 import Unet3, chosen_places, gate_places

__all__ = ["Unet3", "chosen_places", "gate_places"]
