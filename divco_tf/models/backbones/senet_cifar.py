"""SE-ResNet-110 and -164 for 32-pixel images (Hu et al., arXiv 1709.01507)."""
