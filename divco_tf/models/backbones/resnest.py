"""ResNeSt and ResNeXSt, with split attention (Zhang et al., arXiv 2004.08955)."""
