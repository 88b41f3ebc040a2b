"""What the trained generators share: tensors and datasets, checkpoints, devices, and the training loop."""
