"""Pictures that answer back: the page's face without Python, the kernel's face, and which of the two is shown when."""

from __future__ import annotations

import base64
import io
import itertools
import json
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from nbclient import NotebookClient
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from torch import nn

from tutorial_lib import load_study
from tutorial_lib.explore import Control, draw_digit, explore
from tutorial_lib.explore.browser_network import for_browser
from tutorial_lib.explore.digit_pad import measure
from tutorial_lib.explore.explorable import LARGEST
from tutorial_lib.explore.frames import render
from tutorial_lib.explore.live import BETWEEN, finer
from tutorial_lib.models import build
from tutorial_lib.models.predict import predict_probabilities


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch):
    monkeypatch.delenv("TUTORIAL_EXPLORE", raising=False)
    with mpl.rc_context():
        yield
    plt.close("all")


def line(slope, height=0.0):
    figure, axes = plt.subplots(figsize=(3, 2))
    axes.plot([0, 1], [height, height + slope])
    axes.set_ylim(-1, 3)
    return figure, f"A line that starts at {height} and rises by {slope}."


@pytest.fixture(scope="module")
def one():
    return explore(line, slope=Control([0.0, 0.5, 1.0, 2.0], start=0.5, label="slope of the line", format="{:.1f}"))


@pytest.fixture(scope="module")
def two():
    return explore(line, slope=[0, 1, 2], height=Control([-1.0, 1.0], start=1))


# The drawing function and its frames


def test_there_is_a_frame_for_every_combination_the_last_control_fastest(two):
    wanted = [line(slope, height)[1] for slope, height in itertools.product([0, 1, 2], [-1.0, 1.0])]
    assert [frame.sentence for frame in two.frames] == wanted


def test_the_drawing_function_gets_plain_numbers():
    kinds = []

    def draw(level):
        kinds.append(type(level))
        return np.zeros((4, 4)), "Black."

    explore(draw, level=np.linspace(0, 1, 2))
    explore(draw, level=np.arange(2))
    assert kinds == [float, float, int, int]


def test_frames_look_like_the_drawing_and_are_small():
    figure, _ = line(1.0)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120)
    drawn = np.asarray(Image.open(buffer).convert("RGB"), dtype=float)
    frame = render(line(1.0), dpi=120)
    shown = np.asarray(Image.open(io.BytesIO(frame.png)).convert("RGB"), dtype=float)
    assert np.abs(shown - drawn).mean() < 1
    assert len(frame.png) < 0.6 * len(buffer.getvalue())


def test_photographs_keep_their_colours():
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    frame = render((image, "Noise."), dpi=50)
    shown = np.asarray(Image.open(io.BytesIO(frame.png)).convert("RGB"), dtype=float)
    inside = shown[5:-5, 5:-5]
    assert inside.std(axis=(0, 1)).min() > 60  # uniform noise has 74; few colours would wash it out
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) > 100


def test_no_figure_stays_open_to_be_shown_twice():
    explore(line, slope=[0, 1])
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "given", [lambda slope: line(slope)[0], lambda slope: (line(slope)[0], ""), lambda slope: None]
)
def test_a_drawing_without_a_sentence_is_refused(given):
    with pytest.raises(TypeError, match=r"\(picture, sentence\)"):
        explore(given, slope=[0, 1])


def test_what_is_no_picture_is_refused():
    with pytest.raises(TypeError, match="figure, an image or a batch of images"):
        explore(lambda slope: ("words", "A sentence."), slope=[0, 1])


def test_frames_of_several_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        explore(lambda size: (plt.figure(figsize=(size, 1)), "Empty."), size=[1, 2])


def test_a_page_that_would_be_too_large_is_refused():
    def noise(seed):
        return torch.rand(6, 3, 96, 96, generator=torch.Generator().manual_seed(seed)), "Noise."

    with pytest.raises(ValueError, match="give fewer values"):
        explore(noise, seed=range(20), dpi=200)


@pytest.mark.parametrize("controls", [{}, {"a": [1, 2], "b": [1, 2], "c": [1, 2]}])
def test_one_or_two_controls(controls):
    with pytest.raises(ValueError, match="one or two controls"):
        explore(line, **controls)


# Controls


def test_a_control_starts_at_the_nearest_value():
    assert Control([0.1, 0.2, 0.4], start=0.19).first == 1
    assert Control([0.1, 0.2, 0.4]).first == 1
    assert Control(["low", "high"], start="high").first == 1


@pytest.mark.parametrize(
    ("values", "start", "said"),
    [([1], None, "at least two"), ([1, 2], 5, "outside"), (["a", "b"], "c", "not among"), ([1, 2], "a", "not among")],
)
def test_controls_that_make_no_sense_are_refused(values, start, said):
    with pytest.raises(ValueError, match=said):
        Control(values, start=start)


def test_numbers_are_written_as_asked():
    assert Control([0.5, 2.0], format="{:.2f}").texts == ("0.50", "2.00")
    assert Control([0.123456, 20]).texts == ("0.123", "20")
    assert Control(["none", "all"]).texts == ("none", "all")


# The page's face


def parsed(explorable):
    root = BeautifulSoup(explorable.html(), "html.parser").div
    return root, json.loads(root.select_one(".explore-data").string)


def test_the_page_needs_nothing_from_outside(one, two):
    for explorable in (one, two, draw_digit(digits_network(), load_study("digits"))):
        page = BeautifulSoup(explorable.html(), "html.parser")
        addresses = [
            node.get(name) for node in page.find_all(True) for name in ("src", "href", "srcset") if node.get(name)
        ]
        assert all(address.startswith("data:image/png;base64,") for address in addresses)
        assert (
            "@import" not in explorable.html() and "url(" not in explorable.html() and "fetch(" not in explorable.html()
        )


def test_the_first_frame_is_there_before_any_script(two):
    root, data = parsed(two)
    start = two.frames[3]  # slope 1, height 1
    assert base64.b64decode(root.img["src"].partition(",")[2]) == start.png
    assert root.img["alt"] == start.sentence
    assert (root.img["width"], root.img["height"]) == (str(start.width), str(start.height))
    assert root.select_one(".explore-controls").has_attr("hidden")
    assert "1 and height 1" in root.noscript.get_text()
    assert data["pictures"][3] == ""
    kept = [base64.b64decode(text) for number, text in enumerate(data["pictures"]) if number != 3]
    assert kept == [frame.png for number, frame in enumerate(two.frames) if number != 3]


def test_every_slider_has_a_label_and_words_for_its_value(two):
    root, data = parsed(two)
    for slider, name, count in zip(root.find_all("input"), ("slope", "height"), (3, 2), strict=True):
        assert slider["type"] == "range" and (slider["min"], slider["max"]) == ("0", str(count - 1))
        assert root.find("label", attrs={"for": slider["id"]}).get_text() == name
        assert slider["aria-valuetext"] in data["texts"][("slope", "height").index(name)]


def test_ids_are_unique_even_for_the_same_picture_twice():
    pages = explore(line, slope=[0, 1]).html() + explore(line, slope=[0, 1]).html()
    ids = [node["id"] for node in BeautifulSoup(pages, "html.parser").find_all(id=True)]
    assert len(ids) == len(set(ids)) == 4


def test_words_cannot_break_out_of_the_page():
    nasty = '</script><b>"&'
    explorable = explore(lambda level: (np.zeros((4, 4)), nasty), level=Control([0, 1], label=nasty))
    root, data = parsed(explorable)
    assert data["sentences"] == [nasty, nasty]
    assert root.img["alt"] == nasty and root.find("b") is None


def test_a_typical_picture_leaves_room_in_a_page_of_two_megabytes():
    explorable = explore(lambda slope: line(slope), slope=np.linspace(0, 2, 25))
    assert len(explorable.html()) < LARGEST / 4


# The kernel's face


def test_widgets_draw_what_the_frames_show_and_what_lies_between(one):
    box = one.widget()
    picture, slider = box.children
    assert one.frames[1].sentence in picture.value
    slider.value = 2.0
    assert one.frames[3].sentence in picture.value
    assert base64.b64encode(one.frames[3].png).decode() in picture.value
    slider.value = 0.25
    assert "rises by 0.25" in picture.value


def test_widgets_of_two_controls_move_apart(two):
    picture, slope, height = two.widget().children
    slope.value = 2
    height.value = -1.0
    assert two.frames[4].sentence in picture.value


def test_steps_between_values_only_where_values_are_real():
    assert finer(Control([0, 1, 2])) == [0, 1, 2]
    assert finer(Control(["a", "b"])) == ["a", "b"]
    steps = finer(Control([0.0, 1.0, 3.0]))
    assert len(steps) == 2 * BETWEEN + 1 and steps[0] == 0 and steps[BETWEEN] == 1 and steps[-1] == 3
    assert steps == sorted(steps)
    assert len(finer(Control([0.5, 1, 2]))) == 2 * BETWEEN + 1


# Which face is shown when

SOURCE = """\
import numpy as np
from tutorial_lib.explore import explore
explore(lambda level: (np.full((4, 4), level), f"Grey at {level}."), level=[0.0, 0.5, 1.0])
"""
WIDGET = "application/vnd.jupyter.widget-view+json"


def shown(**environment):
    """Mime types that a cell puts out in a kernel that nobody sits at."""
    import os

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SOURCE)])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.execute(env={**os.environ, **environment})
    (output,) = notebook.cells[0].outputs
    return output.data


def test_a_build_gets_the_page_alone():
    data = shown()
    assert set(data) == {"text/plain", "text/html"}
    assert data["text/plain"] == "Explorable picture: Grey at 0.5."
    assert "explore-controls" in data["text/html"]


def test_a_reader_gets_widgets_and_the_page_beneath():
    data = shown(TUTORIAL_EXPLORE="live")
    assert set(data) == {"text/plain", "text/html", WIDGET}
    assert data[WIDGET]["model_id"]


def test_a_front_end_that_can_be_asked_has_a_reader(one, monkeypatch):
    class Kernel:
        _allow_stdin = True

    class Shell:
        kernel = Kernel()

    monkeypatch.setattr("IPython.get_ipython", lambda: Shell())
    assert WIDGET in one._repr_mimebundle_()
    Shell.kernel._allow_stdin = False
    assert WIDGET not in one._repr_mimebundle_()
    monkeypatch.setitem(sys.modules, "google.colab", object())  # Colab asks in its own way
    assert WIDGET in one._repr_mimebundle_()
    monkeypatch.setenv("TUTORIAL_EXPLORE", "static")
    assert WIDGET not in one._repr_mimebundle_()
    monkeypatch.setenv("TUTORIAL_EXPLORE", "sometimes")
    with pytest.raises(ValueError, match="'live', 'static' or unset"):
        one._repr_mimebundle_()


def test_without_ipywidgets_the_page_is_shown(one, monkeypatch):
    monkeypatch.setenv("TUTORIAL_EXPLORE", "live")
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert WIDGET not in one._repr_mimebundle_()


# In a browser


def page(folder, *pieces):
    file = folder / "page.html"
    body = "\n".join(piece.html() for piece in pieces)
    head = '<meta charset="utf-8"><title>t</title>'
    text = f'<!doctype html><html lang="en"><head>{head}</head><body><main><h1>t</h1>{body}</main></body></html>'
    file.write_text(text, encoding="utf-8")
    return file.as_uri()


def test_arrow_keys_move_the_picture_and_say_so(browser, tmp_path, one, two):
    browser.get_log("browser")  # forget what other tests left
    browser.get(page(tmp_path, one, two))
    first, second = browser.find_elements(By.CSS_SELECTOR, ".explore")
    slider = first.find_element(By.TAG_NAME, "input")
    picture = first.find_element(By.CLASS_NAME, "explore-picture")
    before = picture.get_attribute("src")
    slider.send_keys(Keys.ARROW_RIGHT)
    assert picture.get_attribute("alt") == one.frames[2].sentence
    assert first.find_element(By.CLASS_NAME, "explore-sentence").text == one.frames[2].sentence
    assert slider.get_attribute("aria-valuetext") == f"1.0. {one.frames[2].sentence}"
    assert base64.b64decode(picture.get_attribute("src").partition(",")[2]) == one.frames[2].png
    slider.send_keys(Keys.ARROW_LEFT)
    assert picture.get_attribute("src") == before

    slope, height = second.find_elements(By.TAG_NAME, "input")
    other = second.find_element(By.CLASS_NAME, "explore-picture")
    assert other.get_attribute("alt") == two.frames[3].sentence  # it has not moved with the first one
    slope.send_keys(Keys.END)
    height.send_keys(Keys.HOME)
    assert other.get_attribute("alt") == two.frames[4].sentence
    assert [
        entry
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE" and "favicon" not in entry["message"]
    ] == []


def test_without_scripts_there_is_a_picture_and_no_dead_slider(browser_without_scripts, tmp_path, one):
    pad = draw_digit(digits_network(), load_study("digits"))
    browser_without_scripts.get(page(tmp_path, one, pad))
    picture = browser_without_scripts.find_element(By.CLASS_NAME, "explore-picture")
    assert picture.is_displayed() and picture.size["height"] > 50
    assert not browser_without_scripts.find_element(By.CSS_SELECTOR, "input[type=range]").is_displayed()
    assert browser_without_scripts.find_element(By.CLASS_NAME, "pad-fallback").is_displayed()
    assert not browser_without_scripts.find_element(By.CLASS_NAME, "pad-live").is_displayed()


# The pad


def digits_network(seed=0):
    torch.manual_seed(seed)
    return build("lenet", 8, (1, 8, 8), mean=[0.3], std=[0.35]).eval()


def in_half_precision(model):
    import copy

    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.half().float()
    return rounded


def test_the_browser_computes_what_torch_computes(browser, tmp_path):
    study = load_study("digits")
    networks = [digits_network(0), digits_network(1)]
    pad = draw_digit(networks, study)
    browser.get(page(tmp_path, pad))
    choices = browser.find_elements(By.CSS_SELECTOR, ".pad-example option")
    assert [choice.text for choice in choices] == [name for name, _ in pad.examples]
    for choice, (_, image) in zip(choices, pad.examples, strict=True):
        choice.click()
        said = np.array(browser.execute_script("return document.querySelector('.digit-pad').probabilities"))
        as_stored = (image * 255).round() / 255
        wanted = np.stack([predict_probabilities(in_half_precision(m), as_stored[None])[0].numpy() for m in networks])
        np.testing.assert_allclose(said, wanted, atol=1e-5)
        mean = wanted.mean(axis=0)
        sentence = browser.find_element(By.CLASS_NAME, "pad-sentence").text
        entropy = -(mean * np.log(mean)).sum()
        shared = -(wanted * np.log(wanted)).sum(axis=1).mean()
        assert f"together say {study.class_names[mean.argmax()]} with {100 * mean.max():.0f} %" in sentence
        assert f"the entropy is {entropy:.2f} of at most {np.log(8):.2f} nats" in sentence
        assert f"{max(0, entropy - shared):.2f} is disagreement" in sentence


def test_a_drawing_is_brought_into_the_form_of_the_data(browser, tmp_path):
    study = load_study("digits")
    browser.get(page(tmp_path, draw_digit(digits_network(), study)))
    # a small one, drawn in a corner
    seen = browser.execute_script("""
        const pad = document.querySelector(".pad-canvas"), box = pad.getBoundingClientRect();
        document.querySelector(".pad-clear").click();
        [["pointerdown", 20, 20], ["pointermove", 20, 50], ["pointerup", 20, 50]].forEach(([name, x, y]) =>
            pad.dispatchEvent(new PointerEvent(name, {clientX: box.left + x, clientY: box.top + y, bubbles: true})));
        const small = document.querySelector(".pad-small");
        return Array.from(small.getContext("2d").getImageData(0, 0, 8, 8).data);
    """)
    image = np.array(seen).reshape(8, 8, 4)[..., 0] / 255
    ink = image > 0.2
    assert ink.any(axis=1).all()  # as high as the digits of the study, which fill their image
    assert set(np.flatnonzero(ink.any(axis=0))) <= {2, 3, 4, 5}  # in the middle, thin
    np.testing.assert_allclose(image, image[:, ::-1], atol=0.05)
    _, pen = measure(study.train.float())
    assert image[3].sum() == pytest.approx(pen * 8, rel=0.1)  # as thick as their pen


def test_height_and_pen_are_measured():
    images = torch.zeros(2, 1, 20, 20)
    images[:, 0, 4:16, 8:10] = 1.0  # a bar, 12 high and 2 wide
    height, pen = measure(images)
    assert height == pytest.approx(12 / 20)
    # its outline is 28 long, which counts as 28 pi / 4 of a curve: 24 / (14 pi / 4) thick
    assert pen == pytest.approx(24 / (14 * np.pi / 4) / 12)


def test_examples_show_strangers_and_every_known_class():
    study = load_study("digits")
    names = [name for name, _ in draw_digit(digits_network(), study).examples]
    assert names[0].startswith("unseen classes (") and names[0][16] in "89"
    assert names[-8:] == [f"known {digit}" for digit in range(8)]
    assert {"photographs", "noise"} <= set(names)


@pytest.mark.parametrize(
    ("network", "error", "said"),
    [
        (lambda: build("resnet20", 8, (1, 8, 8)), TypeError, "cannot run|sequential"),
        (lambda: nn.Flatten(), TypeError, "Classifier"),
    ],
)
def test_networks_that_a_browser_cannot_run_are_refused(network, error, said):
    with pytest.raises(error, match=said):
        for_browser(network())


def test_large_networks_are_refused():
    with pytest.raises(ValueError, match="a page can carry"):
        for_browser(build("lenet", 10, (1, 64, 64)))


def test_weights_beyond_half_precision_are_refused():
    model = digits_network()
    model.head.weight.data[0, 0] = 1e6
    with pytest.raises(ValueError, match="half precision"):
        for_browser(model)


def test_the_pad_needs_a_grey_study_and_a_network():
    with pytest.raises(ValueError, match="at least one network"):
        draw_digit([], load_study("digits"))
    with pytest.raises(ValueError, match="colour"):
        draw_digit(digits_network(), load_study("cifar10"))
