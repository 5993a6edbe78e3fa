import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.runtime.strategy import STRATEGIES, make_strategy
from tests import tiny


def test_mirrored_takes_all_logical_devices():
    strategy = make_strategy("mirrored")
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    assert strategy.num_replicas_in_sync == len(tf.config.list_logical_devices(kind))


def test_one_device_is_the_default_placement():
    assert make_strategy("one_device") is tf.distribute.get_strategy()


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_auto_mirrors_several_gpus_only(monkeypatch, gpus):
    # CPUs stand in for the GPUs: what is chosen depends on their number alone.
    devices = (tf.config.list_logical_devices("CPU") * 2)[:gpus]
    list_devices = tf.config.list_logical_devices
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind: devices if kind == "GPU" else list_devices(kind)
    )
    assert make_strategy("auto").num_replicas_in_sync == max(gpus, 1)
    assert isinstance(make_strategy("auto"), tf.distribute.MirroredStrategy) == (gpus == 2)


def test_another_strategy_is_refused_in_one_line():
    with pytest.raises(InputError) as error:
        make_strategy("mirored")
    assert tiny.one_line(error.value, says=lambda text: any(name in text for name in STRATEGIES))


def test_strategies_that_do_not_fit_this_computer_are_refused_in_one_line(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, says in (("multi_worker_mirrored", "divco-launch shows how"), ("tpu", "There is no TPU here")):
        with pytest.raises(InputError) as error:
            make_strategy(name)
        assert tiny.one_line(error.value, says=says)
