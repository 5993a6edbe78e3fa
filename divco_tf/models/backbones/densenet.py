"""DenseNet-BC (Huang et al., arXiv 1608.06993)."""
