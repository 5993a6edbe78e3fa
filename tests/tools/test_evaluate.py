"""divco-evaluate on runs: the table, JSON, several runs, weights and splits."""

import json
import shutil

import numpy as np
import pytest
from absl import flags

from divco_tf.analysis.metrics import confusion_matrix
from divco_tf.analysis.mistakes import class_accuracies, confident_mistakes
from divco_tf.analysis.outputs import outputs
from divco_tf.analysis.robustness import evaluate_robustness
from divco_tf.data.corruptions import CORRUPTIONS
from divco_tf.data.datasets import ALL, SPLITS
from divco_tf.runs import evaluation
from divco_tf.runs.evaluation import evaluate
from divco_tf.runs.model_dir import WEIGHTS, open_model_dir
from divco_tf.runtime import compute, strategy
from divco_tf.serving.export import export
from divco_tf.tools.shared import evaluated
from tests.data.images import image_folder
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
    _, _, ensemble, branch0, branch1, single = result.stdout.split("\n\n")[0].splitlines()
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
    given, evaluate_in_full = {}, evaluation.evaluate_in_full
    whole = {"data_dir": None, "split": "test", "weights": "last", "batch_size": 500}
    found = evaluate_in_full(two_runs[1], strategy="auto", jit="auto", **whole)
    monkeypatch.setattr(evaluation, "evaluate_in_full", lambda model_dir, **options: (given.update(options), found)[1])
    chosen = ("--batch_size=7", "--strategy=mirrored", "--jit=off")
    assert divco("evaluate", f"--model_dir={two_runs[1]}", *chosen).status == 0
    expected = {"batch_size": 7, "strategy": "mirrored", "jit": "off"}
    assert given == {**whole, **expected}


def test_runs_are_compared_with_the_first(divco, two_runs):
    split2, split1 = two_runs
    result = divco("evaluate", f"--model_dir={split1},{split2}")
    _, _, first, second, note = result.stdout.split("\n\n")[1].splitlines()
    told = json.loads(divco("evaluate", f"--model_dir={split1},{split2}", "--json").stdout)[str(split2)]
    low, high = (100 * end for end in told["accuracy_interval"])
    of_low, of_high = (100 * end for end in told["difference_interval"])
    assert low < 100 * told["accuracy"] < high and of_low < 100 * told["difference"] < of_high
    assert told["difference"] == pytest.approx(evaluate(split2).accuracy - evaluate(split1).accuracy)
    assert second.split() == [
        *(str(split2), "2", f"{told['parameters']:,}", f"{told['multiply_adds']:,}", "2"),
        *(f"{low:.2f}", "to", f"{high:.2f}", f"{100 * told['difference']:+.2f}"),
        *(f"{of_low:+.2f}", "to", f"{of_high:+.2f}"),
    ]
    assert first.split()[:2] == [str(split1), "1"] and len(first.split()) == 8
    assert told["differs_in"] == ["held_out 0.2 (there 0.0)", "epochs 2 (there 1)", "training images"]
    assert note == f"{split2} differs from {split1} in more than S: {', '.join(told['differs_in'])}"


def test_classes_confusion_and_mistakes_are_told_and_drawn(divco, two_runs, tmp_path):
    picture = tmp_path / "new" / "confusion.svg"
    asked = (f"--model_dir={two_runs[0]}", "--confusion", "--mistakes=4")
    result = divco("evaluate", *asked, f"--picture={picture}")
    assert (result.status, result.stderr) == (0, "")
    told = json.loads(divco("evaluate", *asked, "--json").stdout)[str(two_runs[0])]
    found = outputs(two_runs[0])
    matrix = confusion_matrix(found.probabilities, found.labels)
    assert told["confusion"] == matrix.tolist()
    assert list(told["class_accuracies"].values()) == class_accuracies(matrix).tolist()
    expected = confident_mistakes(found.probabilities, found.labels, most=4)
    assert [each["image"] for each in told["mistakes"]] == [f"digits test[{one.index}]" for one in expected]
    assert [each["answer"] for each in told["mistakes"]] == [str(one.answer) for one in expected]
    _, classes, confusion, mistakes = result.stdout.split("\n\n")
    assert [line.split()[1] for line in classes.splitlines()[2:]] == [
        f"{100 * share:.2f}" for share in class_accuracies(matrix)
    ]
    assert [[int(cell) for cell in line.split()[1:]] for line in confusion.splitlines()[2:]] == matrix.tolist()
    assert mistakes.splitlines()[2].startswith(f"digits test[{expected[0].index}]  ")
    assert picture.read_text().startswith("<?xml") and "Right class" in picture.read_text()


def test_many_classes_are_told_by_the_worst_and_by_pairs():
    matrix = np.diag(np.full(30, 9))
    matrix[3, 4], matrix[5, 6], matrix[7, 7] = 3, 1, 0
    names = [f"class{number}" for number in range(30)]
    head, _, worst, *others = evaluated.class_table("", matrix, names).splitlines()
    assert head.startswith("the 10 worst of 30 classes") and len(others) == 9
    assert worst.split() == ["class3", "75.00", "12", "class4", "(3)"] and "class7" not in "".join(others)
    assert [line.split() for line in evaluated.confusion_table("", matrix, names).splitlines()[2:]] == [
        ["class3", "class4", "3", "25.00"],
        ["class5", "class6", "1", "10.00"],
    ]


@pytest.fixture(scope="module")
def of_photographs(tmp_path_factory):
    """A run on photographs of three classes, its export, and the folder."""
    root = tmp_path_factory.mktemp("photographs")
    images = image_folder(root / "images")
    described = runs.experiment(dataset="image_folder", image_size=8, epochs=1, batch_size=8)
    runs.run(root / "run", described, data_dir=str(images))
    export(root / "run", export_dir=root / "export", branch_probabilities=True)
    return root


def test_all_images_of_a_labelled_folder_are_evaluated_also_of_fewer_classes(divco, of_photographs, tmp_path):
    for folder in ("class1", "class2"):
        shutil.copytree(of_photographs / "images" / folder, tmp_path / folder)
    run, exported = f"--model_dir={of_photographs / 'run'}", f"--saved_model={of_photographs / 'export'}"
    for data, count in ((of_photographs / "images", 36), (tmp_path, 24)):
        asked = (f"--data_dir={data}", "--split=all", "--json", "--mistakes=99")
        (of_run,) = json.loads(divco("evaluate", run, *asked).stdout).values()
        (of_export,) = json.loads(divco("evaluate", exported, "--dataset=image_folder", *asked).stdout).values()
        assert of_run["images"] == count and len(of_run["mistakes"]) == round(count * (1 - of_run["accuracy"]))
        assert list(of_run["class_accuracies"]) == ["class0", "class1", "class2"]
        assert (of_run["class_accuracies"]["class0"] is None) == (count == 24)
        for name in ("accuracy", "branch_accuracies", "class_accuracies"):
            assert of_export[name] == of_run[name]
        assert all(str(data) in each["image"] for each in of_run["mistakes"])
    assert "all 24 images" in divco("evaluate", run, f"--data_dir={tmp_path}", "--split=all").stdout
    assert "not the run's" in divco.refusal("evaluate", run, f"--data_dir={tmp_path}")
    (tmp_path / "class9").mkdir()
    shutil.copy(tmp_path / "class1" / "0.png", tmp_path / "class9")
    assert "not the run's" in divco.refusal("evaluate", run, f"--data_dir={tmp_path}", "--split=all")
    for split in ("train", "test"):
        shutil.copytree(of_photographs / "images", tmp_path / "parted" / split)
    told = divco.refusal("evaluate", run, f"--data_dir={tmp_path / 'parted'}", "--split=all")
    assert f"data_dir={tmp_path / 'parted' / 'test'} would work" in told


@pytest.fixture(scope="module")
def corrupted(two_runs):
    return evaluate_robustness(two_runs[0], images=50)


def test_corruptions_add_a_table_of_families_and_severities(divco, two_runs, corrupted):
    result = divco("evaluate", f"--model_dir={two_runs[0]}", "--corruptions", "--corrupted_images=50")
    assert (result.status, result.stderr) == (0, "corrupted: 50 of 50 images\n")
    *_, told = result.stdout.split("\n\n")
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
    expected = {"split": (*SPLITS, ALL), "weights": WEIGHTS, "strategy": strategy.STRATEGIES, "jit": compute.JIT}
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
        (["--model_dir=RUN", "--picture=c.jpg"], "A picture is a .png or .svg file. Received: c.jpg"),
        (["--model_dir=RUN,RUN/../split1", "--picture=c.png"], "--picture is of one run. Received: 2 runs"),
        (["--model_dir=RUN", "--mistakes=-1"], "--mistakes=-1"),
        (["--model_dir=RUN", "--split=all"], "split=all of digits"),
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
