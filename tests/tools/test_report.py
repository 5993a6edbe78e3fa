"""divco-report: a sweep's folder, or a run's, becomes a page."""

import json

import pytest

from divco_tf.analysis.grid import Cell
from divco_tf.analysis.report.study import read_study
from divco_tf.analysis.sweep import Sweep
from divco_tf.runs.evaluation import evaluate
from tests.analysis.report import synthetic
from tests.runs import runs


@pytest.fixture
def sweep(tmp_path):
    """Of two arms."""
    return synthetic.sweep(tmp_path / "sweep", arms=synthetic.ARMS[:2], seeds=[0])


def test_a_sweep_becomes_a_page_in_its_folder(divco, sweep):
    result = divco("report", str(sweep))
    page = sweep / "report.html"
    assert (result.status, result.stderr, result.stdout) == (0, "", f"{page}: {page.stat().st_size / 1e6:.1f} MB\n")
    text = page.read_text()
    assert f"<pre>divco-report {sweep}</pre>" in text and "S=4" in text


def test_flags_choose_the_page_the_baseline_and_latencies(divco, sweep, tmp_path):
    record = {"backbone": "wide_resnet10_2", "parameters": 306154, "split_factor": 1, "batch_size": 1, "p50": 0.004}
    found = [record, {**record, "parameters": 312154, "split_factor": 4}]
    (tmp_path / "latency.json").write_text(json.dumps({"systems": {"latencies": found}}))
    out = tmp_path / "new" / "page.html"
    given = ("--baseline=S=4", f"--latency={tmp_path / 'latency.json'}", f"--out={out}")
    assert divco("report", str(sweep), *given).status == 0
    text = out.read_text()
    assert "Against S=4" in text and "Latency of 1 image, ms" in text and not (sweep / "report.html").exists()


def test_the_papers_rows_of_the_dataset_stand_beside(divco, tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", arms=synthetic.ARMS[:2], seeds=[0], dataset="cifar100")
    assert divco("report", str(folder)).status == 0
    text = (folder / "report.html").read_text()
    assert "Published for cifar100" in text and ">resnet110<" in text


def test_a_run_becomes_a_page_of_its_own(divco, tmp_path):
    runs.run(tmp_path / "run", runs.experiment(held_out=0.2))
    assert divco("report", str(tmp_path / "run")).status == 0
    text = (tmp_path / "run" / "report.html").read_text()
    accuracy = evaluate(tmp_path / "run").accuracy
    assert f"S=2 has an accuracy of {100 * accuracy:.1f}\N{NO-BREAK SPACE}%" in text
    assert "Where branches disagree most" in text and 'src="data:image/png' in text


def test_a_real_sweep_is_read_as_it_was_written(tmp_path):
    experiment = runs.experiment(split_factor=1, epochs=1, held_out=0.2)
    found = [Cell(f"split_factor={s}", {"split_factor": s}) for s in (1, 2)]
    Sweep(experiment=experiment, cells=found, folder=tmp_path / "sweep").run(report=lambda line: None)
    study = read_study(tmp_path / "sweep")
    assert (study.names, study.split, study.baseline) == (["S=1", "S=2"], "test", "S=1")
    for arm in study.arms:
        (answers,) = arm.judged
        assert answers.correct.mean() == arm.values("accuracy")[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "DIR is missing. Received: none; divco-report DIR"),
        (("SWEEP", "other"), "Too many arguments. Received: other"),
        (("nowhere",), "Neither a sweep (results.jsonl) nor a run (experiment.json) lies there. Received: nowhere"),
        (("SWEEP", "--baseline=S=3"), "No arm is called so. Received: S=3. Did you mean S="),
        (("SWEEP", "--latency=none.json"), "These are no latencies (FileNotFoundError). Received: none.json"),
        (("SWEEP", "--out=."), "--out is a file. Received: ., a folder; report.html works."),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(divco, sweep, monkeypatch, arguments, says):
    monkeypatch.chdir(sweep.parent)
    line = divco.refusal("report", *(argument.replace("SWEEP", str(sweep)) for argument in arguments))
    assert says in line and not (sweep / "report.html").exists()


def test_help_tells_what_stands_beside_the_flags(divco):
    told = divco("report", "--help").stdout
    assert "usage: divco-report DIR [--flag=value ...]" in told and "--baseline" in told
