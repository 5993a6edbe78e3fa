"""PyramidNets with ShakeDrop (Han et al., arXiv 1610.02915; Yamada et al., arXiv 1802.02375)."""
