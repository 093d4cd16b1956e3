"""Pictures of chapter 15 show what they are given."""

from __future__ import annotations

import numpy as np
import torch

from tutorial_lib.figures import image_quality as pictures


def test_markers_stand_at_the_qualities_and_in_their_rows(axes):
    pictures.draw_on_jpeg_scale(axes, {"PSNR": [20, 90], "SSIM": [50, 5]}, ["moved", "blurred"])
    first, second = (collection.get_offsets() for collection in axes.collections)
    np.testing.assert_allclose(first[:, 0], [20, 90])
    np.testing.assert_allclose(second[:, 0], [50, 5])
    np.testing.assert_allclose(np.round([*first[:, 1], *second[:, 1]]), [0, 1, 0, 1])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row at the top
    assert [label.get_text() for label in axes.get_yticklabels()] == ["moved", "blurred"]


def test_verdicts_show_both_pictures_and_every_measure():
    reference = torch.zeros(3, 8, 8, dtype=torch.uint8)
    figure = pictures.verdicts(reference, reference + 255, {"PSNR": 30.0, "SSIM": 80.0}, "blur, level 2")
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    assert sorted(float(image.max()) for image in shown) == [0, 1]
    scale = figure.axes[-1]
    assert [line.get_xdata()[-1] for line in scale.lines] == [30, 30, 80, 80]
    assert {text.get_text() for text in scale.texts} == {"PSNR", "SSIM"}


def test_filters_lie_in_rows_each_on_its_own_scale(axes):
    filters = np.zeros((192, 3))
    filters[0, 0], filters[63, 1], filters[5, 2], filters[100, 2] = 2.0, -4.0, 0.5, 99.0
    pictures.draw_filters(axes, filters, columns=2)
    sheet = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert sheet.shape == (17, 17)
    assert (sheet[0, 0], sheet[7, 16], sheet[9, 5]) == (1, -1, 1)
    assert np.isnan(sheet[8]).all() and np.isnan(sheet[9:, 9:]).all()
