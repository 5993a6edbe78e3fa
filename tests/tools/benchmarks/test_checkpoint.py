"""`divco-benchmark checkpoint`."""

from divco_tf.models.branch_stack import build
from divco_tf.tools.benchmarks import checkpoint
from tests import tiny  # noqa: F401 registers the network

SIZES = {"num_classes": 3, "input_shape": (8, 8, 3)}
TINY = {"batch_size": 4, "image_size": 8, "num_classes": 3, "report": lambda line: None}


def test_checkpoint_tells_what_a_save_costs():
    result = checkpoint.run(backbone="tiny", split_factor=2, rounds=2, **TINY)
    found = result["systems"]["checkpoint"]
    assert len(found["saves"]) == 2
    assert all(save["call"] <= save["written"] for save in found["saves"])
    parameters = sum(v.numpy().size for v in build("tiny", split_factor=2, **SIZES).trainable_variables)
    assert found["megabytes"] > 2 * 4 * parameters / 2**20  # with the optimizer's momentum
    assert len(result["rows"][0]) == len(result["head"])
