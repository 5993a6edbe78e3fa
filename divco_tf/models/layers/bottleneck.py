"""What residual networks have in common: stages of blocks, and the bottleneck (He et al., arXiv 1512.03385)."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from divco_tf.models.layers import basic


def stages(blocks: Iterable[int], width: int) -> Iterator[tuple[str, int, int]]:
    """(name, width, stride) of each residual block, for the numbers of blocks in each stage.

    Every stage is twice as wide as the one before, and from the second on its first block halves the image.
    """
    for stage, count in enumerate(blocks):
        for block in range(count):
            yield f"layer{stage + 1}.{block}", width * 2**stage, 2 if stage and not block else 1


def bottleneck(
    x: Any,
    widths: tuple[int, int, int],
    *,
    name: str,
    stride: int = 1,
    groups: int = 1,
    gamma: float = 1.0,
    drop: Callable[[Any, str], Any] | None = None,
) -> Any:
    """Convolutions of 1x1, 3x3 (strided, grouped) and 1x1, each with batch normalisation, ReLU between them.

    Args:
      x: [B, H, W, C].
      widths: channels of each convolution.
      name: of the block.
      stride: of the 3x3 convolution.
      groups: of the 3x3 convolution.
      gamma: initial scale of the last norm; 0 makes a block start as its shortcut.
      drop: (features, name of the norm they come from) -> features, for regularisation after each of the norms.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), widths[2]].
    """
    drop = drop or (lambda features, _: features)
    first, inner, last = widths
    one, two, three = (basic.numbered(name, index) for index in (1, 2, 3))
    y = drop(basic.conv_norm_relu(x, first, 1, names=one), one[1])
    y = drop(basic.conv_norm_relu(y, inner, 3, stride=stride, groups=groups, names=two), two[1])
    return drop(basic.conv_norm(y, last, 1, gamma=gamma, names=three), three[1])
