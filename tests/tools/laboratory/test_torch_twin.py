"""The PyTorch twin, where PyTorch is installed."""

import numpy as np
import pytest

from divco_tf.models.backbones.resnet import ResNeXtSpec
from divco_tf.models.division import branch_spec
from divco_tf.models.template import build_network

SIZES = {"num_classes": 3, "input_shape": (8, 8, 3)}


@pytest.mark.parametrize(
    "spec", [branch_spec("wide_resnet10_2"), ResNeXtSpec((1, 1), width=16, base_width=16, groups=2)], ids=str
)
def test_the_pytorch_twin_computes_what_the_keras_network_does(spec):
    torch = pytest.importorskip("torch", reason="PyTorch is for comparison only, and not installed")
    from divco_tf.tools.laboratory.torch_twin import TorchTwin

    network = build_network(spec, **SIZES)
    rng = np.random.default_rng(1)
    for variable in network.variables:
        variable.assign(rng.uniform(0.2, 0.6, variable.shape) * (1 if variable.path.endswith("variance") else 0.3))
    twin = TorchTwin(network).eval()
    weighted = (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear)
    by_node = [
        node.operation
        for _, nodes in sorted(network._nodes_by_depth.items(), reverse=True)
        for node in nodes
        if node.operation.weights
    ]
    with torch.no_grad():
        modules = [part for part in twin.parts if isinstance(part, weighted)]
        for layer, module in zip(by_node, modules, strict=True):
            values = [torch.tensor(weight.numpy()) for weight in layer.weights]
            if isinstance(module, torch.nn.BatchNorm2d):
                for target, value in zip(
                    (module.weight, module.bias, module.running_mean, module.running_var), values, strict=True
                ):
                    target.copy_(value)
            elif isinstance(module, torch.nn.Conv2d):
                module.weight.copy_(values[0].permute(3, 2, 0, 1))
            else:
                module.weight.copy_(values[0].T)
                module.bias.copy_(values[1])
        image = rng.standard_normal((2, 8, 8, 3)).astype(np.float32)
        output = twin(torch.tensor(image.transpose(0, 3, 1, 2))).numpy()
    assert np.allclose(output, network(image).numpy(), atol=1e-4 * np.abs(output).max())
