"""The folder to name in ``nnUNet_extTrainer``; nnU-Net imports every file in it."""
