"""What is planned in which time, and what is advised of what was measured (the statistics have tests of their own)."""

import dataclasses

import numpy as np
import pytest

from divco_tf.analysis.advice import CellTime, advise, check_trained, gathered, plan, time_cells
from divco_tf.analysis.grid import cells
from divco_tf.analysis.judged import Judged
from divco_tf.errors import InputError, RunError
from divco_tf.runs.options import Options
from tests.runs import runs

TIMES = {1: CellTime(fixed=10.0, step=0.1), 4: CellTime(fixed=12.0, step=0.1)}


def planned(minutes, **changes):
    experiment = runs.experiment(**{"batch_size": 64, "epochs": 20, **changes})
    return plan(experiment, TIMES, images=6400, minutes=minutes, num_classes=10)


def test_with_time_enough_all_images_are_trained_on_with_as_many_seeds_as_fit():
    # 2,000 steps of 0.1 s and what is around them: 210 and 212 s, 7.7 and 8.1 minutes a seed with the margin
    found = planned(60)
    assert (found.sizes, found.seeds, found.predicts) == ((6400,), 7, False)
    assert 56 < found.seconds / 60 < 60
    assert [cell.arguments for cell in cells(found.grids)][-1] == {"split_factor": 4, "seed": 6}
    assert planned(600).seeds == 10
    assert found.sentence == "S = 1,4 on all 6,400 training images, 7 seeds each: about 57 minutes"


def test_with_less_parts_of_the_images_are_trained_on_and_the_rest_is_a_prediction():
    found = planned(40)
    assert (found.sizes, found.seeds, found.predicts) == ((1600, 3200), 6, True)
    assert "what wins on all is then a prediction" in found.sentence
    assert planned(24).sizes == (800, 1600)
    assert len(cells(found.grids)) == 2 * 2 * 6


@pytest.mark.parametrize("changes", [{}, {"epochs": None, "steps": 2000}])
def test_what_cannot_answer_is_refused_with_the_time_that_would_do(changes):
    with pytest.raises(InputError, match=r"Received: 5 minutes; 6 seeds of S = 1,4 take about 4\d minutes"):
        planned(5, **changes)


def test_times_are_taken_without_test_images(monkeypatch):
    from divco_tf.data.sources import opening

    opened, digits = set(), opening._open_digits
    monkeypatch.setattr(
        opening, "_open_digits", lambda facts, request: opened.add(request.split) or digits(facts, request)
    )
    times = time_cells(runs.experiment(held_out=0.2), [1, 2], options=Options(threads=1))
    assert set(times) == {1, 2} and all(each.step > 0 and each.fixed > 0 for each in times.values())
    assert opened == {"train", "held_out"}


def ensemble(rng, difficulty, accuracy):
    """Answers to images of one difficulty each: right where the network's luck is better than that."""
    correct = rng.random(len(difficulty)) < np.clip(accuracy + 0.3 * difficulty, 0, 1)
    likelihood = np.where(correct, np.log(0.8), np.log(0.1)) + 0.01 * rng.standard_normal(len(difficulty))
    labels = np.zeros(len(difficulty), np.int64)
    classes = np.where(correct, 0, 1)
    return Judged(labels, classes, np.full(len(labels), 0.8), likelihood, np.zeros(len(labels)), classes[:, None])


def table(seed, accuracies, *, images=2000, seeds=6):
    """S -> what each seed's ensemble made of the same images; seeds differ by 0.4 points."""
    rng = np.random.default_rng(seed)
    difficulty = rng.uniform(-1, 1, images)
    return {
        split: [ensemble(rng, difficulty, accuracy + 0.004 * rng.standard_normal()) for _ in range(seeds)]
        for split, accuracy in accuracies.items()
    }


def test_the_same_network_with_other_seeds_shows_no_difference_in_19_of_20_tables():
    answers = [advise({1000: table(seed, {1: 0.7, 4: 0.7})}, images=1000) for seed in range(60)]
    wrong = sum(answer.accuracy[4].word != "no difference seen" for answer in answers)
    assert wrong <= 3
    assert all("nothing that was seen speaks for dividing" in answers[0].sentences[0] for _ in "x")


def test_a_planted_difference_of_two_intervals_is_found():
    null = advise({1000: table(0, {1: 0.7, 4: 0.7})}, images=1000).accuracy[4].comparison
    planted = 2 * (null.high - null.low)
    answers = [advise({1000: table(seed, {1: 0.7, 4: 0.7 + planted})}, images=1000) for seed in range(20)]
    assert sum(answer.split_factor == 4 and answer.accuracy[4].word == "pays" for answer in answers) >= 19
    assert answers[0].sentences[0] == "Take S = 4."
    worse = advise({1000: table(1, {1: 0.7, 4: 0.7 - planted})}, images=1000)
    assert worse.split_factor == 1 and worse.accuracy[4].word == "does not pay"


def test_better_probabilities_at_the_same_accuracy_are_told_first():
    scores = table(0, {1: 0.7, 4: 0.7})
    scores[4] = [dataclasses.replace(found, log_likelihood=found.log_likelihood + 0.1) for found in scores[4]]
    answer = advise({1000: scores}, images=1000)
    assert answer.split_factor == 1 and answer.likelihood[4].word == "pays"
    assert answer.sentences[0].startswith("S = 4 if you use probabilities")
    worse = advise({1000: scores | {1: table(0, {1: 0.8, 4: 0.7})[1]}}, images=1000)
    assert worse.accuracy[4].word == "does not pay" and worse.sentences[0].startswith("Take S = 1")


def test_what_wins_on_all_images_is_marked_as_a_prediction():
    scores = {size: table(size, {1: 0.5 + gain, 4: 0.6 + gain}) for size, gain in ((800, 0.0), (1600, 0.1))}
    answer = advise(scores, images=6400)
    assert answer.prediction is not None
    assert answer.sentences[1].startswith("PREDICTION, nothing was measured with 6,400 images: ")


def test_advice_without_the_large_network_is_refused():
    with pytest.raises(InputError, match="Advice needs S = 1"):
        advise({1000: table(0, {2: 0.7, 4: 0.7})}, images=1000)


def test_only_seeds_that_every_s_has_are_compared():
    made = table(0, {1: 0.7, 4: 0.7}, images=10)
    rows, judged = [], {}
    for split, of_split in made.items():
        for seed, found in enumerate(of_split):
            name = f"{split},{seed}"
            rows.append({"cell": name, "arguments": {}, "split_factor": split, "seed": seed})
            judged[name] = found
    del judged["4,2"]  # it has failed
    scores = gathered(rows, judged, images=500)
    assert list(scores) == [500] and [len(of_split) for of_split in scores[500].values()] == [5, 5]
    assert scores[500][1][2] is made[1][3]
    assert dataclasses.is_dataclass(scores[500][4][0])


def test_a_prediction_without_a_winner_is_too_close_to_call():
    scores = {size: table(size, {1: 0.6 + gain, 4: 0.6 + gain}) for size, gain in ((800, 0.0), (1600, 0.1))}
    answer = advise(scores, images=6400)
    assert answer.prediction.winner is None and answer.sentences[0].startswith("Too close to call for all 6,400 images")


def test_cells_that_all_failed_are_no_answer():
    made = cells(["split_factor=1,4; seed=0..1"])
    rows = [{"cell": cell.name, "status": "done", "split_factor": 1} for cell in made[:2]]
    rows += [{"cell": cell.name, "status": "failed", "reason": "it was killed"} for cell in made[2:]]
    with pytest.raises(RunError, match=r"2 of 4 cells failed, all of S = 4. Received: it was killed \(split_factor=4"):
        check_trained(rows, made)
    check_trained([*rows[:3], {"cell": made[3].name, "status": "done", "split_factor": 4}], made)
