"""Hints of the library as they are typed."""

import pytest
from absl import flags

from divco_tf.tools.shared import hints
from tests.tools.in_process import fresh_program


@pytest.mark.parametrize(
    ("program", "message", "typed"),
    [
        (
            "train",
            "x. Received: early_stopping=5, held_out=0; held_out=0.1 would work.",
            "x. Received: early_stopping=5, held_out=0; --set held_out=0.1 would work.",
        ),
        (
            "train",
            "x. Received: weights='ema'; pass ema_decay=None.",
            "x. Received: weights='ema'; pass --set ema_decay=None.",
        ),
        (
            "train",
            "Pass rule=\"budget\". Received: 3; or jit='auto', weight_decay=5e-4.",
            "Pass --set rule=budget. Received: 3; or --set jit=auto, --set weight_decay=5e-4.",
        ),
        ("train", "x. Received: 1; extend=True works.", "x. Received: 1; --extend works."),
        ("summarize", 'Received: 3; rule="budget" works.', "Received: 3; --rule budget works."),
        # As it is: several places have the name, no place has it, no binding can be given, it is part of another word.
        ("train", "Received: 3; warmup_epochs=0 works.", "Received: 3; warmup_epochs=0 works."),
        ("train", "Received: 3; bins=15 works.", "Received: 3; bins=15 works."),
        ("export", "Received: 3; held_out=0.1 works.", "Received: 3; held_out=0.1 works."),
        ("train", "Received: 3; x.held_out=0.1 works.", "Received: 3; x.held_out=0.1 works."),
        ("train", "held_out=0.1 without what was received", "held_out=0.1 without what was received"),
    ],
)
def test_a_setting_of_a_hint_is_a_flag_or_set(program, message, typed):
    with fresh_program(program):
        flags.FLAGS.mark_as_parsed()
        assert hints.as_typed(message) == typed


def test_a_refusal_of_training_speaks_of_settings(divco, tmp_path):
    line = divco.refusal(
        *("train", "--config=digits/wide_resnet10_2_split4", "--bind=experiment.Experiment.early_stopping=5"),
        f"--model_dir={tmp_path / 'run'}",
    )
    assert line.endswith("; --set held_out=0.1 would work.")
