"""EfficientNets for 32-pixel images (Tan and Le, arXiv 1905.11946)."""
