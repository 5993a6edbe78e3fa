import pytest

from divco_tf.runs.experiment import Experiment
from tests.runs import runs
from tests.runs.refusals import DIGITS, refusal


@pytest.mark.parametrize(
    "changes", [{"dataset": "digts"}, {"epochs": 0}, {"epochs": True}, {"batch_size": 1.5}, {"batch_size": -1}]
)
def test_what_no_run_can_be_is_refused_in_one_line(changes):
    (name,) = changes
    assert name in refusal(runs.experiment, **changes)


def test_data_of_another_number_of_classes_are_refused():
    said = refusal(Experiment(backbone="tiny", dataset="cifar100").check_classes, DIGITS)
    assert "cifar100 of 100 classes" in said and "10 classes" in said
    Experiment(backbone="tiny", dataset="image_folder").check_classes(DIGITS)
