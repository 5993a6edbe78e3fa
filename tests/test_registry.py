import importlib.metadata
import re
import subprocess
import sys
import types

import pytest

from divco_tf.errors import InputError
from divco_tf.registry import Registry, did_you_mean


@pytest.fixture
def registry() -> Registry:
    registry: Registry[str] = Registry("dish")
    registry.add("lasagne", "L")
    registry.add("ravioli", "R")
    return registry


def test_an_entry_is_found_by_its_name(registry):
    assert registry.get("lasagne") == "L"
    assert registry.names() == ("lasagne", "ravioli")
    assert registry.entries() == ("L", "R")


def test_names_are_sorted_and_entries_follow_them():
    registry: Registry[int] = Registry("number")
    for number, name in enumerate(["c", "a", "b"]):
        registry.add(name, number)
    assert registry.names() == ("a", "b", "c")
    assert registry.entries() == (1, 2, 0)


def test_a_name_is_given_once(registry):
    with pytest.raises(InputError, match=r"dish lasagne is registered already. Received: 'M'") as error:
        registry.add("lasagne", "M")
    assert "\n" not in str(error.value)
    assert registry.get("lasagne") == "L"


@pytest.mark.parametrize("misspelt", ["lasange", "LASAGNE", "lasagna"])
def test_an_unknown_name_gets_the_closest_ones(registry, misspelt):
    with pytest.raises(InputError, match=rf"^Unknown dish. Received: {misspelt}. Did you mean lasagne\?"):
        registry.get(misspelt)


@pytest.mark.parametrize(
    ("name", "names", "sentence"),
    [
        ("cifar11", ["cifar10", "svhn"], " Did you mean cifar10?"),
        ("xyz", ["b", "a"], " Available: a, b."),
        ("xyz", [f"number{i}" for i in range(13)], ""),
        ("xyz", [], ""),
    ],
)
def test_suggestions(name, names, sentence):
    assert did_you_mean(name, names) == sentence


def parse_soup(name: str) -> str | None:
    return name.upper() if name.startswith("soup_of_") else None


def test_a_family_of_names_is_parsed_and_not_listed(registry):
    registry.add_parser("soup_of_<thing>", parse_soup)
    assert registry.get("soup_of_leeks") == "SOUP_OF_LEEKS"
    assert registry.names() == ("lasagne", "ravioli")
    assert registry.shapes() == ("soup_of_<thing>",)
    with pytest.raises(InputError, match=r"Also any soup_of_<thing>"):
        registry.get("stew")


def test_a_misspelt_name_of_a_family_is_suggested_with_its_parameters(registry):
    def parse_layers(name):
        match = re.fullmatch(r"lasagne_(\d+)", name)
        if match and match[1] == "0":
            raise InputError("A lasagne has layers. Received: 0; 1 works.")
        return match and name.upper()

    registry.add_parser("lasagne_<layers>", parse_layers)
    with pytest.raises(InputError, match=r"Did you mean lasagne_12 or lasagne\?"):
        registry.get("lasange_12")
    with pytest.raises(InputError, match=r"Did you mean lasagne\?"):
        registry.get("lasange_0")


def test_an_entry_goes_before_a_family_of_names(registry):
    registry.add_parser("soup_of_<thing>", parse_soup)
    registry.add("soup_of_leeks", "ours")
    assert registry.get("soup_of_leeks") == "ours"


class Plugins:
    """Entry points of packages that are not there: name -> what loading does."""

    def __init__(self) -> None:
        self.loads: dict[str, object] = {}
        self.loaded: list[str] = []

    def entry_points(self, *, group: str) -> list[importlib.metadata.EntryPoint]:
        assert group == "divco_tf.dishes"
        return [importlib.metadata.EntryPoint(name, f"package_{name}", group) for name in self.loads]


@pytest.fixture
def plugins(monkeypatch) -> Plugins:
    plugins = Plugins()

    def load(point: importlib.metadata.EntryPoint) -> None:
        plugins.loaded.append(point.name)
        plugins.loads[point.name]()

    monkeypatch.setattr(importlib.metadata, "entry_points", plugins.entry_points)
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", load)
    return plugins


@pytest.fixture
def pluggable() -> Registry:
    registry: Registry[str] = Registry("dish", entry_points="divco_tf.dishes")
    registry.add("lasagne", "L")
    return registry


def fail() -> None:
    raise ModuleNotFoundError("No module named 'basil'")


def test_a_plugin_gives_its_entry_and_is_listed(pluggable, plugins):
    plugins.loads["pesto"] = lambda: pluggable.add("pesto", "P")
    assert pluggable.get("pesto") == "P"
    assert pluggable.names() == ("lasagne", "pesto")


def test_plugins_are_left_alone_for_a_name_of_ours(pluggable, plugins):
    plugins.loads["pesto"] = lambda: pluggable.add("pesto", "P")
    assert pluggable.get("lasagne") == "L"
    assert plugins.loaded == []


def test_a_plugin_is_loaded_once(pluggable, plugins):
    plugins.loads["pesto"] = lambda: pluggable.add("pesto", "P")
    assert [pluggable.names() for _ in range(3)] == [("lasagne", "pesto")] * 3
    assert plugins.loaded == ["pesto"]


def test_an_entry_point_may_register_entries_of_other_names(pluggable, plugins):
    plugins.loads["sauces"] = lambda: (pluggable.add("pesto", "P"), pluggable.add("ragu", "R"))
    assert pluggable.get("ragu") == "R"


def test_a_broken_plugin_breaks_its_own_name_only(pluggable, plugins):
    plugins.loads = {"basil": fail, "pesto": lambda: pluggable.add("pesto", "P")}
    assert pluggable.names() == ("lasagne", "pesto")
    assert pluggable.get("lasagne") == "L"
    assert pluggable.get("pesto") == "P"
    with pytest.raises(InputError, match=r"plugin of dish basil cannot be loaded.*No module named 'basil'") as error:
        pluggable.get("basil")
    assert "Received: entry point package_basil" in str(error.value)
    with pytest.raises(InputError, match=r"Unknown dish. Received: bazil"):
        pluggable.get("bazil")


def test_a_broken_plugin_is_tried_once_and_told_with_a_name_that_is_not_found(pluggable, plugins):
    plugins.loads = {"basil": fail}
    for _ in range(3):
        pluggable.names()
    for _ in range(2):
        with pytest.raises(InputError, match=r"plugin of dish basil cannot be loaded.*No module named 'basil'"):
            pluggable.get("basil")
    with pytest.raises(InputError) as error:
        pluggable.get("soup_of_basil")
    assert "The plugin package_basil, which may have it, cannot be loaded (ModuleNotFoundError: " in str(error.value)
    assert "\n" not in str(error.value)
    assert plugins.loaded == ["basil"]


def test_a_plugin_that_takes_a_name_of_ours_does_not_replace_it(pluggable, plugins):
    plugins.loads["impostor"] = lambda: pluggable.add("lasagne", "false")
    assert pluggable.names() == ("lasagne",)
    assert pluggable.get("lasagne") == "L"


def test_a_plugin_that_registers_nothing_leaves_its_name_unknown(pluggable, plugins):
    plugins.loads["empty"] = lambda: types.SimpleNamespace()
    with pytest.raises(InputError, match=r"Unknown dish. Received: empty"):
        pluggable.get("empty")


def test_an_installed_package_plugs_in_a_backbone_by_entry_point(tmp_path):
    (tmp_path / "my_package.py").write_text(
        "import dataclasses\n"
        "from divco_tf.models.backbones.registry import register_backbone\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class MySpec:\n"
        "    width: int = 4\n"
        "@register_backbone('my_net', MySpec())\n"
        "def my_net(spec, image, *, draw, num_classes): ...\n"
    )
    metadata = tmp_path / "my_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[divco_tf.backbones]\nmy_net = my_package\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from divco_tf.models.backbones.registry import BACKBONES\n"
        "print(BACKBONES.get('my_net').spec, 'my_net' in BACKBONES.names(), 'tensorflow' in sys.modules)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout == "MySpec(width=4) True False\n", process.stderr


def test_a_registry_without_entries_says_so():
    with pytest.raises(InputError, match=r"^Unknown dish\. Received: soup\. None is registered"):
        Registry("dish").get("soup")
