"""A pad to draw a digit on, beside what a network makes of it.

The network runs in the reader's browser, so the pad works in a notebook and in the built page alike. A drawing is first
brought into the form of the data: moved and scaled until it is as high as their digits, drawn with a pen as thick as
theirs, averaged over the area of each pixel. Who cannot draw chooses an example instead.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib.explore.browser_network import for_browser
from tutorial_lib.explore.frames import render
from tutorial_lib.explore.page import as_json, asset, data_uri, unique_id
from tutorial_lib.models import Classifier
from tutorial_lib.models.predict import predict_probabilities
from tutorial_lib.plots import MODEL, WIDE, show_image

if TYPE_CHECKING:
    from tutorial_lib.studies import Study

INK = 0.2
"""Brightness from which a pixel counts as ink when the digits of a study are measured."""


class DigitPad:
    """A pad in a page; the last line of a cell shows it. Made by :func:`draw_digit`.

    Attributes:
        models: the networks.
        class_names: what they can say.
        examples: (name, image (1, H, W) in [0, 1]) of each example; the first one is shown at the start.
    """

    def __init__(self, models: Sequence[Classifier], study: Study) -> None:
        self.models = list(models)
        self.class_names = study.class_names
        self.examples = _examples(self.models[0], study)
        height, pen = measure(study.train.float())
        self._page = self._html(height, pen)

    def probabilities(self, images: Tensor) -> Tensor:
        """(M, N, K): what each of the M networks says of N images (N, 1, H, W)."""
        return torch.stack([predict_probabilities(model, images) for model in self.models])

    def html(self) -> str:
        """The pad, self-contained; without scripts, a picture of the first example."""
        return self._page

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": f"Drawing pad. {self._sentence()}", "text/html": self._page}

    def _sentence(self) -> str:
        name, image = self.examples[0]
        mean = self.probabilities(image[None]).mean(dim=0)[0]
        said = "The network says" if len(self.models) == 1 else f"The {len(self.models)} networks together say"
        return f"Example {name}. {said} {self.class_names[int(mean.argmax())]} with {float(mean.max()):.0%} confidence."

    def _figure(self) -> Figure:
        name, image = self.examples[0]
        probabilities = self.probabilities(image[None]).mean(dim=0)[0].numpy()
        figure, (left, right) = plt.subplots(1, 2, figsize=WIDE, width_ratios=[1, 2])
        show_image(left, image, name)
        rows = np.arange(len(self.class_names))
        right.barh(rows, probabilities, color=MODEL)
        right.set(yticks=rows, yticklabels=self.class_names, xlim=(0, 1), xlabel="probability", title="What it says")
        right.invert_yaxis()
        return figure

    def _html(self, height: float, pen: float) -> str:
        _, rows, columns = self.examples[0][1].shape
        data = {
            "networks": [for_browser(model) for model in self.models],
            "classes": self.class_names,
            "rows": rows,
            "columns": columns,
            "height": height,
            "pen": pen,
            "examples": [base64.b64encode(_bytes(image)).decode("ascii") for _, image in self.examples],
        }
        names = [html.escape(name) for name, _ in self.examples]
        frame = render((self._figure(), self._sentence()), dpi=120)
        values = {
            "root": unique_id(as_json(data)),
            "style": asset("digit_pad.css"),
            "width": str(frame.width),
            "height": str(frame.height),
            "sentence": html.escape(frame.sentence),
            "picture": data_uri(frame.png),
            "choices": "".join(f'<option value="{number}">{name}</option>' for number, name in enumerate(names)),
            "rows": str(rows),
            "columns": str(columns),
            "bars": "".join(
                f'<tr><th scope="row">{html.escape(name)}</th><td><div class="pad-bar"></div></td>'
                '<td class="pad-number"></td></tr>'
                for name in self.class_names
            ),
            "data": as_json(data),
            "script": asset("digit_pad.js").strip(),
        }
        return re.sub(r"\{\{ (\w+) \}\}", lambda match: values[match[1]], asset("digit_pad.html"))


def draw_digit(model: Classifier | Sequence[Classifier], study: Study) -> DigitPad:
    """A pad to draw a digit on, beside the probabilities that a network gives it.

    Args:
        model: a LeNet-like classifier of the study, or several: then a bar is the mean of their probabilities, a tick
            on it is one network, and the sentence says how much they disagree (mutual information, in nats).
        study: whose digits the network knows; its images must be grey. Its test images, and those of its shifts whose
            data are on this machine, are the examples.

    Returns:
        The pad; make it the last line of the cell.
    """
    models = [model] if isinstance(model, Classifier) else list(model)
    if not models:
        raise ValueError("draw_digit needs at least one network")
    if study.image_shape[0] != 1:
        raise ValueError(
            f"study {study.name} has colour images, and a pad draws in grey; use the study digits or mnist"
        )
    return DigitPad(models, study)


def measure(images: Tensor) -> tuple[float, float]:
    """How high drawings are and how thick their pen is, so that a new drawing can be made alike.

    Args:
        images: (N, 1, H, W) in [0, 1], bright ink on dark ground.

    Returns:
        Median height of the ink as a share of the image, and median thickness of the pen as a share of that height. The
        thickness is ink divided by length; the length is half the outline, which runs along a stroke twice, and the
        outline is the total variation, which is 4/pi too long on average over directions.
    """
    rows = (images[:, 0] > INK).any(dim=2)
    first = rows.int().argmax(dim=1)
    last = rows.shape[1] - 1 - rows.flip(1).int().argmax(dim=1)
    height = float((last - first + 1)[rows.any(dim=1)].double().median())
    padded = torch.nn.functional.pad(images[:, 0].double(), (1, 1, 1, 1))
    outline = (padded.diff(dim=1).abs().sum((1, 2)) + padded.diff(dim=2).abs().sum((1, 2))) * math.pi / 4
    thickness = padded.sum((1, 2)) / (outline / 2).clamp(min=1e-9)
    return height / images.shape[2], float(thickness.median()) / height


def _examples(model: Classifier, study: Study) -> list[tuple[str, Tensor]]:
    """Named images: of each shift the one the network is surest about, unknown digits first; then one of each class."""
    near: list[tuple[str, Tensor]] = []
    other: list[tuple[str, Tensor]] = []
    for name in study.available_shifts():
        images = study.shift(name).sample(min(64, len(study.shift(name))), seed=0)
        surest = int(predict_probabilities(model, images.float()).max(dim=1).values.argmax())
        kind = study.shifts[name].kind
        label = "" if kind == "far" else f" ({images.class_names[int(images.labels[surest])]})"
        (near if kind == "near" else other).append((f"{name.replace('_', ' ')}{label}", images.float()[surest]))
    known = []
    for number, name in enumerate(study.class_names):
        position = int(study.test.labels.eq(number).nonzero()[0])
        known.append((f"known {name}", study.test.subset([position]).float()[0]))
    return [*near, *other, *known]


def _bytes(image: Tensor) -> bytes:
    return (image[0] * 255).round().to(torch.uint8).numpy().tobytes()
