"""Squeeze-and-excitation networks for ImageNet (Hu et al., arXiv 1709.01507)."""
