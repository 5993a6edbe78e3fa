"""ResNet-D, Wide ResNet and ResNeXt (He et al., arXiv 1812.01187; Xie et al., arXiv 1611.05431)."""
