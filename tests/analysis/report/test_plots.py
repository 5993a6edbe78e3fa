"""The numbers behind the plots are those of other definitions, and every plot is there for the studies that have it."""

import dataclasses
import json

import numpy as np
import pytest
import sklearn.metrics

from divco_tf.analysis import diversity
from divco_tf.analysis.judged import judged, save_judged
from divco_tf.analysis.report import branches, costs, differences, drawing, quality
from divco_tf.analysis.report.effects import ACCURACY, effects
from divco_tf.analysis.report.study import read_study
from divco_tf.analysis.selective import risk_coverage_curve
from divco_tf.errors import InputError
from tests.analysis.report import synthetic

LABELS = np.arange(80) % 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("sweeps") / "grown"
    return synthetic.sweep(place, labels=LABELS, seeds=range(2), amounts=(500, 2000), curve=3)


@pytest.fixture(scope="module")
def study(folder):
    return read_study(folder)


@pytest.mark.parametrize("split_factor", [1, 2, 4])
def test_matrices_of_classes_are_those_of_probabilities(split_factor):
    found = synthetic.outputs(LABELS, split_factor=split_factor, skill=5)
    probabilities = np.exp(found.logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    disagreement, correlation = branches.matrices([judged(found)])
    np.testing.assert_allclose(disagreement, diversity.pairwise_disagreement(probabilities), atol=1e-15)
    np.testing.assert_allclose(correlation, diversity.error_correlation(probabilities, LABELS), atol=1e-15)


def test_matrices_are_means_over_seeds():
    each = [judged(synthetic.outputs(LABELS, split_factor=2, skill=5, seed=seed)) for seed in range(3)]
    expected = np.mean([branches.matrices([one]) for one in each], axis=0)
    np.testing.assert_allclose(branches.matrices(each), expected, atol=1e-15)


def test_the_confusion_matrix_is_scikit_learns(study):
    arm = study.arms[0]
    labels, classes = (np.concatenate([getattr(each, name) for each in arm.judged]) for name in ("labels", "classes"))
    np.testing.assert_array_equal(quality.confusion(arm), sklearn.metrics.confusion_matrix(labels, classes))
    top = quality.top_confusions(study, arm)
    counts = [count for _, _, count, _ in top]
    assert counts == sorted(counts, reverse=True) and all(right != answer for right, answer, _, _ in top)
    assert counts[0] == np.max(quality.confusion(arm) * (1 - np.eye(10, dtype=int)))


def test_many_classes_are_a_picture_without_names(tmp_path):
    labels = np.arange(90) % 30
    (tmp_path / "judged").mkdir()
    found = synthetic.outputs(labels, split_factor=2, skill=5, num_classes=30)
    row = synthetic.done({"split_factor": 2}, {"test": found})
    (tmp_path / "results.jsonl").write_text(json.dumps(row) + "\n")
    save_judged(tmp_path / "judged" / "split_factor=2.npz", {"test": judged(found)})
    many = read_study(tmp_path)
    plot = quality.confusion_plot("confusion", many, many.arms[0])
    assert all(right != answer for right, answer, _, _ in plot.rows)
    assert not plot.figure.axes[0].texts and "data:image/png;base64," in drawing.svg(plot)


def test_risk_ends_at_the_error_of_all_images(study):
    plot = quality.risk_coverage_plot("risk", study, study.tasks[0])
    for arm in study.of_task(study.tasks[0]):
        points = [(coverage, risk) for name, coverage, risk in plot.rows if name == arm.name]
        assert points[-1] == pytest.approx((100, 100 * (1 - np.mean(arm.values("accuracy")))))
        half = next(risk for coverage, risk in points if coverage == 50)
        curves = [risk_coverage_curve(each.confidence, ~each.correct) for each in arm.judged]
        assert half == pytest.approx(100 * np.mean([curve.risk[curve.coverage == 0.5] for curve in curves]))


def test_reliability_counts_all_images_of_all_seeds(study):
    plot = quality.reliability_plot("reliability", study, study.tasks[0])
    for arm in study.of_task(study.tasks[0]):
        bins = [(confidence, accuracy, count) for name, confidence, accuracy, count in plot.rows if name == arm.name]
        assert sum(count for *_, count in bins) == 2 * len(LABELS)
        assert sum(accuracy * count for _, accuracy, count in bins) / (2 * len(LABELS)) == pytest.approx(
            np.mean(arm.values("accuracy"))
        )


def test_members_stand_beside_their_ensemble(study):
    plot = branches.members_plot("members", study, study.tasks[0])
    arm = study.of_task(study.tasks[0])[1]
    told = {who: value for name, seed, who, value in plot.rows if (name, seed) == (arm.name, 0)}
    metrics = arm.results[0].metrics
    assert told == {
        "ensemble": metrics["accuracy"],
        **{f"branch {i}": a for i, a in enumerate(metrics["branch_accuracies"])},
    }


def test_curves_have_a_line_a_seed_where_there_is_more_than_one_point(study, tmp_path):
    plot = quality.curve_plot("curve", study, study.tasks[0], "accuracy", "Accuracy, %", 100)
    assert len(plot.figure.axes[0].lines) == 6 and len(plot.rows) == 18
    once = read_study(synthetic.sweep(tmp_path / "once", labels=LABELS, seeds=[0]))
    assert quality.curve_plot("curve", once, once.tasks[0], "accuracy", "Accuracy, %", 100) is None


def test_costs_are_those_of_the_rows(study):
    plots = {plot.name: plot for plot in costs.cost_plots(study)}
    assert set(plots) == {
        f"{a}-{b}" for a in ("accuracy", "negative_log_likelihood") for b in ("parameters", "multiply_adds")
    }
    row = next(row for row in plots["accuracy-parameters"].rows if row[0] == "S=4")
    arm = study.of_task(study.tasks[0])[1]
    assert row[:4] == ("S=4", "digits", "wide_resnet10_2", "500")
    assert row[5:7] == (pytest.approx(0.312154), pytest.approx(100 * np.mean(arm.values("accuracy"))))


def latencies(tmp_path, *records):
    path = tmp_path / "latency.json"
    path.write_text(json.dumps({"command": "divco-benchmark latency", "systems": {"latencies": records}}))
    return path


RECORD = {"backbone": "wide_resnet10_2", "split_factor": 4, "parameters": 312154, "batch_size": 1, "p50": 0.004}


def test_a_latency_is_the_fastest_way_of_the_same_network(study, tmp_path):
    others = [
        {**RECORD, "p50": 0.002, key: value}
        for key, value in (("split_factor", 2), ("parameters", 1), ("batch_size", 32))
    ]
    found = costs.read_latencies(latencies(tmp_path, RECORD, {**RECORD, "p50": 0.003}, RECORD, *others))
    timed = costs.latency_of(study.arms, found, 1)
    assert {arm.name: timed.get(id(arm)) for arm in study.of_task(study.tasks[0])} == {
        **{"S=1": None, "S=4": pytest.approx(3), "S=4, loss=none": pytest.approx(3)}
    }
    names = [plot.name for plot in costs.cost_plots(study, found)]
    assert "accuracy-latency1" in names and "accuracy-latency32" in names


@pytest.mark.parametrize("text", ["", "[]", '{"systems": {}}', '{"systems": {"latencies": [{"p50": 1}]}}'])
def test_what_tells_no_latencies_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="no latencies .*Received: .*x.json"):
        costs.read_latencies(tmp_path / "x.json")


def test_published_rows_are_those_of_the_dataset(study):
    rows = [
        {"dataset": name, "backbone": "resnet110", "split_factor": s, "epochs": 300, "crop": 32}
        | {"mparams": "1.17", "gmacs": "0.17", "top1_error": "18.96"}
        for name in ("digits", "cifar10")
        for s in (1, 2)
    ]
    plots = costs.published_plots(study, rows)
    assert [plot.name for plot in plots] == ["published-digits-mparams", "published-digits-gmacs"]
    assert plots[0].rows == [
        ("resnet110, 300 epochs", 1, 1.17, pytest.approx(81.04)),
        ("resnet110, 300 epochs", 2, 1.17, pytest.approx(81.04)),
    ]
    assert "another recipe" in plots[0].told


def test_differences_stand_against_the_amount_of_data_where_it_varies(study, tmp_path):
    found = effects(study, ACCURACY)
    (plot,) = differences.difference_plots(study, ACCURACY, found)
    assert plot.figure.axes[0].get_xlabel() == "Training images" and len(plot.rows) == len(found) == 4
    once = read_study(synthetic.sweep(tmp_path / "once", labels=LABELS, seeds=range(2)))
    (plot,) = differences.difference_plots(once, ACCURACY, effects(once, ACCURACY))
    labels = [text.get_text() for text in plot.figure.axes[0].get_yticklabels()]
    assert labels == ["S=4", "S=4, loss=none"]


def test_the_main_plot_is_a_file(folder, tmp_path):
    for name in ("main.svg", "main.png"):
        differences.save_main_plot(folder, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
    single = synthetic.sweep(tmp_path / "single", labels=LABELS, arms=synthetic.ARMS[:1])
    with pytest.raises(InputError, match="Nothing is compared"):
        differences.save_main_plot(single, tmp_path / "main.svg")


def test_collapsed_ensembles_are_named(study):
    assert branches.told_collapsed(study).startswith("No ensemble has collapsed")
    arm = study.of_task(study.tasks[1])[1]
    results = tuple(
        dataclasses.replace(result, metrics={**result.metrics, "collapsed": float(result.seed == 0)})
        for result in arm.results
    )
    arms = tuple(dataclasses.replace(each, results=results) if each is arm else each for each in study.arms)
    told = branches.told_collapsed(dataclasses.replace(study, arms=arms))
    assert told == "Collapsed, branches that answer as one network: S=4, 2,000 images (in 1 of 2 seeds)."
