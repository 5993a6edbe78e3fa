"""README's and the guides' commands are commands, their trainings can be planned, and what they print is printed."""

import pathlib
import re
import runpy
import shlex
import shutil
import sys

import pytest

from divco_tf.data.sources import open_source
from divco_tf.data.views.operations import OWN
from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.runs.model_dir import claim_model_dir
from divco_tf.tools.shared import configs
from tests.data.images import image_folder, photograph
from tests.docs import pages
from tests.tools.conftest import divco  # noqa: F401 the fixture

PROGRAMS = {"divco-import": "import_checkpoint"}  # `import` is no module's name
OTHERS = re.compile(r"tools/\w+\.sh\b|pip install |docker run |\.venv/bin/|python -m tools\.|tensorboard |source |git ")
"""What else a reader is told to type; a line of a shell is one of these or a program of ours."""

LINES = sorted({line for line in pages.command_lines() if not re.match(r"[\w.]+/\S+  \S", line)})  # no listing of files
PRINTED = [pair for page in pages.guides() for pair in pages.commands_with_outputs(page)]
MISTAKES = {commands.strip(): text.strip() for commands, text in PRINTED if ": error: " in text}
COMMANDS = [line for line in LINES if line.startswith("divco-") and line not in MISTAKES]
COMMANDS += [line[line.index("divco-", 1) :] for line in COMMANDS if line.startswith("divco-launch")]
TRAININGS = sorted({line for line in COMMANDS if line.startswith("divco-train ")})


def split(command: str) -> tuple[str, list[str]]:
    program, *arguments = shlex.split(command, comments=True)
    return PROGRAMS.get(program, program.removeprefix("divco-")), arguments


@pytest.mark.parametrize("line", [line for line in LINES if not line.startswith("divco-")])
def test_every_other_line_of_a_shell_is_known(line):
    assert OTHERS.match(line), "a program that the tests of documentation do not know"
    for script in re.findall(r"tools/\w+\.\w+", line):
        assert (pages.ROOT / script).is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_flags_of_its_program(divco, command):  # noqa: F811
    name, arguments = split(command)
    called = []
    result = divco(name, *arguments, main=lambda *_: called.append(name))
    assert (result.stderr, result.status, called) == ("", 0, [name])


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
    """A working directory as a reader has it: the guides' modules and configs, and photographs."""
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "photos", classes=4, images=30)
    for block in pages.blocks("gin"):
        pathlib.Path(re.match(r"# (\w+\.gin): ", block.text)[1]).write_text(block.text)
    ours = {"salt": (OWN, "register_operation"), "plain_cnn": (BACKBONES, "register_backbone")}
    for name, (registry, how) in ours.items():
        entries = {known: entry for known, entry in registry._entries.items() if known != name}
        monkeypatch.setattr(registry, "_entries", entries)
        (block,) = (block for block in pages.blocks("python") if f"@divco_tf.{how}(" in block.text)
        pathlib.Path(f"{name}.py").write_text(block.text)
    yield tmp_path
    sys.modules.pop("salt", None)


def plans() -> list:
    """The trainings; a pattern of large networks takes its time."""
    return [pytest.param(each, marks=[pytest.mark.slow] * ("*" in each), id=each) for each in TRAININGS]


@pytest.mark.parametrize("command", plans())
def test_every_training_can_be_planned(divco, readers_folder, command):  # noqa: F811
    name, arguments = split(command)
    if "plain_cnn" in command:
        runpy.run_path("plain_cnn.py")  # as its entry point does
    result = divco(name, *arguments, "--quiet", *["--dry_run"] * ("--dry_run" not in arguments))
    lacks = {"data"} if "--data_dir data" in command else set()  # nothing is downloaded here
    lacks |= {"devices"} if "multi_worker" in command else set()
    last = [line.split() for line in result.stdout.splitlines() if line.startswith("ready:")]
    assert result.stderr == "" and last
    assert all(line == (["ready:", "no,", "see", *sorted(lacks)] if lacks else ["ready:", "yes"]) for line in last)
    assert not (readers_folder / "runs").exists()


@pytest.mark.parametrize(
    "config",
    sorted({name for page in pages.guides() for name in pages.config_names(page)} - {"digits/wide_resnet10_2_split5"}),
)
def test_every_config_that_is_named_is_there(config):
    assert configs.find_config(config).is_file()


@pytest.mark.parametrize(
    ("commands", "text"), [pair for pair in PRINTED if re.match("divco-(summarize|configs)", pair[0])]
)
def test_what_lists_and_summaries_print_is_printed(divco, commands, text):  # noqa: F811
    printed = []
    for command in commands.splitlines():
        name, arguments = split(command)
        printed.append(divco(name, *arguments).stdout if name in ("summarize", "configs") else "")
    assert text in printed


@pytest.mark.parametrize("block", pages.blocks("python"), ids=lambda block: block.name)
def test_code_runs_as_printed(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for registry in (OWN, BACKBONES):  # the names that a page registers are free again afterwards
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    names = {"__name__": "documented"}
    exec(compile(block.text, block.name, "exec"), names)
    if "probabilities" in names:
        assert names["probabilities"].shape == (8, 10)
        assert (tmp_path / "ensemble.keras").is_file()
        assert "accuracy" in capsys.readouterr().out


def test_the_plugin_is_the_one_that_is_tested():
    plugin = pages.ROOT / "tests" / "plugin"
    assert (plugin / "plain_cnn.py").read_text() in [block.text for block in pages.blocks("python")]
    assert (plugin / "pyproject.toml").read_text() in [block.text for block in pages.blocks("toml")]


def test_the_readme_is_short():
    assert len(pages.README.read_text().splitlines()) <= 140


@pytest.fixture
def mistaken_folder(readers_folder):
    """The same with what the mistakes of the page on errors need: a run, and folders that are no good."""
    for name in ("cat", "dog", "horse"):
        for number in range(1, 51):
            path = pathlib.Path("broken", name, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph(32, 32, seed=number).save(path)
    shutil.rmtree("photos")
    shutil.copytree("broken", "photos")
    shutil.copytree("broken/cat", "flat")
    pathlib.Path("broken/cat/1.png").write_text("no image")
    pathlib.Path("empty").mkdir()
    configs.parse_config("digits/wide_resnet10_2_split4")
    described = configs.experiment()
    run = claim_model_dir(pathlib.Path("runs/digits"), described, open_source("digits", "train"))
    run.checkpoints.save(0, {"stack": described.build(10).variables})
    return readers_folder


@pytest.mark.parametrize(("command", "line"), MISTAKES.items(), ids=[line.split(". ")[0] for line in MISTAKES.values()])
def test_every_error_line_is_what_its_command_prints(divco, mistaken_folder, command, line):  # noqa: F811
    name, arguments = split(command)
    result = divco(name, *arguments)
    assert (result.status, result.stderr.splitlines()[-1]) == (2, line)


def test_every_error_stands_under_a_heading_of_its_own():
    text = (pages.DOCS / "guides" / "troubleshooting.md").read_text()
    assert len(MISTAKES) >= 20 and text.count("\n### ") >= len(MISTAKES)
