import numpy as np
import pytest

from divco_tf.errors import InputError
from divco_tf.models.torch_weights import import_state_dict, torch_tensors
from tests import tiny


def state_dict(stack, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        f"models.{branch}.{tensor.name}": rng.random(tensor.shape).astype(np.float32)
        for branch in range(stack.split_factor)
        for tensor in torch_tensors(stack.network.template)
    }


def test_every_entry_lands_in_its_branch_and_layout():
    stack = tiny.tiny_stack()
    state = state_dict(stack)
    import_state_dict(stack, state)
    for branch in range(2):
        model = stack.branch(branch)
        kernel = state[f"models.{branch}.conv.weight"]  # [out, in, h, w]
        np.testing.assert_array_equal(model.get_layer("conv").kernel, kernel.transpose(2, 3, 1, 0))
        np.testing.assert_array_equal(model.get_layer("fc").kernel, state[f"models.{branch}.fc.weight"].T)
        np.testing.assert_array_equal(model.get_layer("fc").bias, state[f"models.{branch}.fc.bias"])
        norm = model.get_layer("norm")
        np.testing.assert_array_equal(norm.gamma, state[f"models.{branch}.norm.weight"])
        np.testing.assert_array_equal(norm.beta, state[f"models.{branch}.norm.bias"])
        np.testing.assert_array_equal(norm.moving_mean, state[f"models.{branch}.norm.running_mean"])
        np.testing.assert_array_equal(norm.moving_variance, state[f"models.{branch}.norm.running_var"])


def test_counters_of_batches_are_passed_over():
    plain, counted = tiny.tiny_stack(), tiny.tiny_stack()
    import_state_dict(plain, state_dict(plain))
    import_state_dict(counted, {**state_dict(plain), "models.0.norm.num_batches_tracked": np.array(7)})
    for name, value in plain.stacked_values().items():
        np.testing.assert_array_equal(counted.stacked_values()[name], value)


def without(state):
    del state["models.1.norm.running_var"]


def surplus(state):
    state["models.2.fc.weight"] = np.zeros((3, 4))


def misnamed(state):
    state["models.0.norm.wieght"] = np.zeros(4)


def transposed(state):
    state["models.1.fc.weight"] = state["models.1.fc.weight"].T


def wrapped(state):
    for name in list(state):
        state[f"net.{name}"] = state.pop(name)


def damaged(value, name="models.0.conv.weight", dtype=np.float32):
    def damage(state):
        state[name] = state[name].astype(dtype)
        state[name].reshape(-1)[1] = value

    return damage


def whole_numbers(state):
    state["models.0.fc.bias"] = np.ones(3, np.int64)


def scalar(state):
    state["models.0.fc.bias"] = 0.0


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (without, "lacks 1 entries. Received: no models.1.norm.running_var (4,)"),
        (surplus, "1 entries that are no weight of tiny_x2. Received: models.2.fc.weight"),
        (misnamed, "Received: models.0.norm.wieght. Did you mean models.0.norm.weight"),
        (transposed, "Received: models.1.fc.weight (4, 3); it must be (3, 4)"),
        (wrapped, "such as net.models.0.conv.weight, and lacks 14 entries. Received: no models.0."),
        (damaged(np.nan), "models.0.conv.weight, with NaN or infinity in 1 of 108 numbers"),
        (damaged(np.inf, "models.1.norm.running_mean"), "models.1.norm.running_mean, with NaN or infinity in 1 of 4"),
        (damaged(-np.inf, dtype=np.float16), "models.0.conv.weight, with NaN or infinity in 1 of"),
        (damaged(1e300, dtype=np.float64), "models.0.conv.weight, with NaN or infinity in 1 of"),
        (damaged(-1, "models.1.norm.running_var"), "Received: models.1.norm.running_var, -1.0"),
        (whole_numbers, "models.0.fc.bias of int64"),
        (scalar, "Received: models.0.fc.bias (); it must be (3,)"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_by_name(damage, says):
    stack = tiny.tiny_stack()
    before = tiny.values(stack.variables)
    state = state_dict(stack)
    damage(state)
    with pytest.raises(InputError) as error:
        import_state_dict(stack, state)
    assert tiny.one_line(error.value, says=says)
    assert tiny.largest_difference(before, tiny.values(stack.variables)) == 0


def test_why_a_missing_entry_was_not_read_is_told():
    state = state_dict(tiny.tiny_stack())
    without(state)
    with pytest.raises(InputError) as error:
        import_state_dict(tiny.tiny_stack(), state, unreadable={"models.1.norm.running_var": "it is a set"})
    assert tiny.one_line(error.value, says=r"no models.1.norm.running_var (4,) (it is a set)")
