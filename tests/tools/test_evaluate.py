"""divco-evaluate on runs: the table, JSON, several runs, weights and splits."""

import json
import shutil

import pytest
from absl import flags

from divco_tf.analysis.robustness import evaluate_robustness
from divco_tf.data.corruptions import CORRUPTIONS
from divco_tf.data.datasets import SPLITS
from divco_tf.runs import evaluation
from divco_tf.runs.evaluation import evaluate
from divco_tf.runs.model_dir import WEIGHTS, open_model_dir
from divco_tf.runtime import compute, strategy
from tests.reference import old
from tests.runs import runs
from tests.tools.in_process import fresh_program


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """The folders of a run of two branches and of one of one branch."""
    root = tmp_path_factory.mktemp("runs")
    runs.run(root / "split2", runs.experiment(held_out=0.2))
    runs.run(root / "split1", runs.experiment(split_factor=1, epochs=1))
    return root / "split2", root / "split1"


def test_runs_share_a_table_in_which_the_ensemble_stands_over_its_branches(divco, two_runs):
    split2, split1 = two_runs
    result = divco("evaluate", f"--model_dir={split2},{split1}")
    assert (result.status, result.stderr) == (0, "")
    _, _, ensemble, branch0, branch1, single = result.stdout.splitlines()
    assert ensemble.startswith(f"{split2}  (last step 8, 387 test images)")
    assert branch0.startswith("  branch 0") and branch1.startswith("  branch 1")
    assert single.startswith(f"{split1}  (last step 5, 387 test images)")
    figures = evaluate(split2)
    expected = [f"{100 * figures.accuracy:.2f}", f"{figures.negative_log_likelihood:.4f}"]
    assert ensemble.split()[-4:-2] == expected
    assert branch1.split()[-1] == f"{100 * figures.branch_accuracies[1]:.2f}"


def test_json_holds_every_figure_in_full(divco, two_runs):
    split2, _ = two_runs
    content = json.loads(divco("evaluate", f"--model_dir={split2}", "--json").stdout)
    told, figures = content[str(split2)], evaluate(split2)
    assert told["accuracy"] == figures.accuracy
    assert told["branch_accuracies"] == list(figures.branch_accuracies)
    assert told["seconds_per_step"] == figures.seconds_per_step == open_model_dir(split2).seconds_per_step


@pytest.mark.parametrize(("flag", "key", "value"), [("weights", "weights", "best"), ("split", "split", "held_out")])
def test_weights_and_split_are_chosen_by_flag(divco, two_runs, flag, key, value):
    content = json.loads(divco("evaluate", f"--model_dir={two_runs[0]}", f"--{flag}={value}", "--json").stdout)
    assert content[str(two_runs[0])][key].startswith(value)


def test_a_folder_with_a_comma_in_its_name_is_one_folder(divco, two_runs, tmp_path):
    named, other = tmp_path / "lr=0.1,wd=1", two_runs[1]
    shutil.copytree(other, named)
    alone = json.loads(divco("evaluate", f"--model_dir={named}", "--json").stdout)
    assert list(alone) == [str(named)]
    both = json.loads(divco("evaluate", f"--model_dir={named}", f"--model_dir={other}", "--json").stdout)
    assert [evaluation["accuracy"] for evaluation in both.values()] == [alone[str(named)]["accuracy"]] * 2


def test_batches_devices_and_xla_are_chosen_by_flag(divco, two_runs, monkeypatch):
    given, figures = {}, evaluation.evaluate(two_runs[1])
    monkeypatch.setattr(evaluation, "evaluate", lambda model_dir, **options: (given.update(options), figures)[1])
    chosen = ("--batch_size=7", "--strategy=mirrored", "--jit=off")
    assert divco("evaluate", f"--model_dir={two_runs[1]}", *chosen).status == 0
    expected = {"batch_size": 7, "strategy": "mirrored", "jit": "off"}
    assert given == {"data_dir": None, "split": "test", "weights": "last", **expected}


@pytest.fixture(scope="module")
def corrupted(two_runs):
    return evaluate_robustness(two_runs[0], images=50)


def test_corruptions_add_a_table_of_families_and_severities(divco, two_runs, corrupted):
    result = divco("evaluate", f"--model_dir={two_runs[0]}", "--corruptions", "--corrupted_images=50")
    assert (result.status, result.stderr) == (0, "corrupted: 50 of 50 images\n")
    _, told = result.stdout.split("\n\n")
    head, _, clean, *families, mean = told.splitlines()
    assert head.startswith(f"{two_runs[0]}  (50 images, accuracy %)  severity 1  ") and head.endswith("  mean")
    assert clean.split() == ["clean", f"{100 * corrupted.clean_accuracy:.2f}"]
    assert [line.split()[0] for line in families] == list(CORRUPTIONS)
    assert families[-1].split()[1:6] == [f"{100 * accuracy:.2f}" for accuracy in corrupted.accuracy[-1]]
    assert mean.split()[-1] == f"{100 - 100 * corrupted.mean_corruption_error:.2f}"


def test_json_has_corruptions_in_full(divco, two_runs, corrupted):
    arguments = ("--corruptions", "--corrupted_images=50", "--json")
    told = json.loads(divco("evaluate", f"--model_dir={two_runs[0]}", *arguments).stdout)[str(two_runs[0])]
    assert told["images"] == 387 and told["corruptions"]["images"] == 50
    for figure in ("accuracy", "negative_log_likelihood"):
        by_family = told["corruptions"][figure]
        assert list(by_family) == list(CORRUPTIONS)
        assert list(by_family.values()) == getattr(corrupted, figure).tolist()
    assert told["corruptions"]["relative_corruption_error"] == corrupted.relative_corruption_error


def test_flags_offer_what_the_library_takes():
    with fresh_program("evaluate"):
        offered = {name: set(flags.FLAGS[name].parser.enum_values) for name in ("split", "weights", "strategy", "jit")}
    expected = {"split": SPLITS, "weights": WEIGHTS, "strategy": strategy.STRATEGIES, "jit": compute.JIT}
    assert offered == {name: set(values) for name, values in expected.items()}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--model_dir or --saved_model"),
        (["--model_dir=RUN", "--dataset=digits"], "--dataset is not of --model_dir. Received: 'digits';"),
        (["--saved_model=x", "--dataset=digits", "--weights=best"], "--weights is not of --saved_model."),
        (["--saved_model=x", "--dataset=digits", "--jit=auto"], "--jit is not of --saved_model."),
        (["--model_dir=RUN", "--batch_size=0"], "--batch_size=0: 0 is not a positive integer."),
        (["--saved_model=x", "--dataset=digits", "--corruptions"], "--corruptions is not of --saved_model."),
        (["--model_dir=RUN", "--corrupted_images=5"], "--corrupted_images is of --corruptions. Received: 5 without it"),
        (["--model_dir=RUN", "--corruptions", "--corrupted_images=999"], "1 to 387 would work"),
        (["--model_dir=RUN,ROOT"], "experiment.json is missing"),
        (["--model_dir=RUN", "--saved_model=x"], "--model_dir or --saved_model"),
        (["--saved_model=x"], "--dataset"),
        (["--saved_model=ROOT", "--dataset=digits"], "No SavedModel"),
        (["--model_dir=ROOT"], "experiment.json is missing"),
        (["--model_dir=RUN", "--weights=bets"], "best"),
        (["--model_dir=RUN", "--weights=ema"], "no moving average"),
        (["--model_dir=RUN", "--split=tests"], "test"),
    ],
)
def test_bad_input_is_refused_in_one_line(divco, two_runs, arguments, says):
    run, root = str(two_runs[0]), str(two_runs[0].parent)
    arguments = [argument.replace("RUN", run).replace("ROOT", root) for argument in arguments]
    assert says in divco.refusal("evaluate", *arguments)


@pytest.mark.parametrize("release", old.RELEASES)
def test_a_run_and_an_export_of_a_release_have_their_figures(divco, tmp_path, release):
    run, export = old.unpacked(release, "chosen", tmp_path), tmp_path / "exports" / "chosen"
    arguments = [[f"--model_dir={run}", "--weights=best"], [f"--saved_model={export}", "--dataset=digits"]]
    expected = old.told(release, "runs")["chosen"]["best"]
    for given in arguments:
        result = divco("evaluate", *given, "--json")
        (figures,) = json.loads(result.stdout).values()
        assert figures["negative_log_likelihood"] == pytest.approx(expected["negative_log_likelihood"], rel=1e-4)
        assert figures["branch_accuracies"] == pytest.approx(expected["branch_accuracies"], abs=0.01)
        assert figures["weights"].endswith(expected["of"])
