"""Plots are the same bytes for the same numbers, have ids of their own, and labels that do not lie on each other."""

import csv
import io
import re
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divco_tf.analysis.report import drawing
from divco_tf.errors import InputError


@drawing.styled
def plot(name="a-plot", title="Points & <lines>"):
    figure, axes = drawing.axes()
    axes.plot([1, 2, 3], [3, 1, 2], marker="o", color=drawing.COLOURS[0])
    drawing.label_points(axes, [(3, 2), (3, 2)], ["S=1", "S=4, a<b"], [drawing.INK] * 2, end=True)
    return drawing.Plot(name, title, "How.", figure, ("arm", "x"), [("S=4, loss=none", 0.1234567891), ("b", 3)])


def test_the_same_plot_is_the_same_bytes():
    assert drawing.svg(plot()) == drawing.svg(plot())
    assert not re.search(r"20\d\d-\d\d|matplotlib v|http://matplotlib", drawing.svg(plot()))


def test_two_plots_share_no_id_and_each_refers_to_its_own():
    texts = [drawing.svg(plot(name)) for name in ("a", "b")]
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in texts]
    assert ids[0] and not ids[0] & ids[1]
    for text, own in zip(texts, ids, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', text)) <= own
        assert len(re.findall(r'\bid="', text)) == len(own)


def test_a_plot_is_an_image_with_a_name_and_text_that_is_text():
    text = drawing.svg(plot())
    root = ElementTree.fromstring(text)
    assert (root.get("role"), root.get("aria-label")) == ("img", "Points & <lines>")
    assert root.find("{http://www.w3.org/2000/svg}title").text == "Points & <lines>"
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "S=1" in texts and "a<b" in "".join(filter(None, texts))
    assert "font-family" not in text


def test_colours_are_the_pages():
    text = drawing.svg(plot())
    assert "var(--c0)" in text and "var(--ink)" in text and "var(--grid)" in text
    assert not any(colour in text for colour in (*drawing.COLOURS, drawing.INK, drawing.MUTED, drawing.GRID))


def test_the_table_of_a_plot_is_a_link_that_holds_it():
    kind, _, text = plot().csv().partition(",")
    assert kind == "data:text/csv;charset=utf-8"
    assert list(csv.reader(io.StringIO(unquote(text)))) == [["arm", "x"], ["S=4, loss=none", "0.123457"], ["b", "3"]]


@pytest.mark.parametrize(("suffix", "begins"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_a_plot_is_a_file_of_its_own_and_the_same_one_each_time(tmp_path, suffix, begins):
    written = []
    for name in ("one", "other"):
        drawing.save(plot(), tmp_path / f"{name}{suffix}")
        written.append((tmp_path / f"{name}{suffix}").read_bytes())
    assert written[0] == written[1] and written[0].startswith(begins)
    assert b"var(--" not in written[0]  # a file has no page that says what they are


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match="Received: .*plot.jpg; .*plot.svg works"):
        drawing.save(plot(), tmp_path / "plot.jpg")


def test_a_users_matplotlibrc_changes_nothing():
    import matplotlib

    expected = drawing.svg(plot())
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        assert drawing.svg(plot()) == expected
        assert dict(matplotlib.rcParams) == before


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.2)), min_size=1, max_size=12))
def test_labels_keep_their_order_and_do_not_overlap(pairs):
    values, sizes = (np.array(each) for each in zip(*pairs, strict=True))
    places = drawing.spread(values, sizes)
    order = np.argsort(values, kind="stable")
    gaps = np.diff(places[order]) - (sizes[order][1:] + sizes[order][:-1]) / 2
    assert (gaps > -1e-9).all()
    assert (places - sizes / 2 > -1e-9).all()
    assert sizes.sum() > 1 or (places + sizes / 2 < 1 + 1e-9).all()


def test_labels_that_have_room_stay_where_they_are():
    values = np.array([0.8, 0.2, 0.5])
    np.testing.assert_allclose(drawing.spread(values, np.full(3, 0.1)), values)


def test_long_names_are_broken_behind_commas():
    told = drawing.wrapped("S=4, loss=none, views=cifar10")
    assert told == "S=4, loss=none,\nviews=cifar10"
    assert drawing.wrapped("a_name_of_many_letters=and_more") == "a_name_of_m…s=and_more"
    assert drawing.wrapped("S=4") == "S=4"


def test_every_arm_has_a_look_of_its_own_and_the_baseline_is_ink():
    names = [f"S={number}" for number in range(1, 30)]
    looks = drawing.looks(names, "S=1")
    assert len(set(looks.values())) == len(names)
    assert looks["S=1"].colour == drawing.INK and all(looks[name].colour != drawing.INK for name in names[1:])
