"""The nineteen corruptions of CIFAR-10-C, for images of any size.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019. The
constants are those of the authors' program for 32x32 images. What they do is the same; how, differs where the original
cannot be repeated: it draws without a seed, cuts off instead of rounding, and is written for one size. In particular

* fog, frost, spatter and snow are made from noise with the statistics described there (frost pictures and ImageMagick are
  not needed);
* glass shows at every pixel the colour of a random neighbour; the original means to swap the two and copies one;
* shot noise at a lower level of light is what is left of the photons of the brightest, each kept with equal chance.
"""

from __future__ import annotations

from tutorial_lib.data.corruptions import blurs, digital, noises, weather
from tutorial_lib.data.corruptions.base import Corruption
from tutorial_lib.data.corruptions.cure import CORRUPTIONS

__all__ = ["CIFAR10_C"]

#: The nineteen by name, with their constants at levels 1 to 5; the last four are the extra ones, kept for validation.
CIFAR10_C: dict[str, Corruption] = {
    corruption.name: corruption
    for corruption in (
        Corruption(
            "gaussian_noise", "sensor noise", (0.04, 0.06, 0.08, 0.09, 0.10), noises.gaussian_noise, random=True
        ),
        Corruption("shot_noise", "little light", (500, 250, 100, 75, 50), noises.shot_noise, random=True),
        Corruption("impulse_noise", "dead pixels", (0.01, 0.02, 0.03, 0.05, 0.07), noises.impulse_noise, random=True),
        Corruption(
            "defocus_blur",
            "out of focus",
            ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
            blurs.defocus_blur,
        ),
        Corruption(
            "glass_blur",
            "frosted glass",
            ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
            blurs.glass_blur,
            random=True,
        ),
        Corruption(
            "motion_blur",
            "moved while exposed",
            ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
            blurs.motion_blur_at_an_angle,
            random=True,
        ),
        Corruption("zoom_blur", "moved towards while exposed", (1.06, 1.11, 1.16, 1.21, 1.26), blurs.zoom_blur),
        Corruption("snow", "falling snow", CORRUPTIONS["snow"].constants, CORRUPTIONS["snow"].apply, random=True),
        Corruption(
            "frost",
            "ice on the pane",
            ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
            weather.frost,
            random=True,
        ),
        Corruption("fog", "fog", ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)), weather.fog, random=True),
        Corruption("brightness", "brighter", (0.05, 0.1, 0.15, 0.2, 0.3), digital.brightness),
        Corruption("contrast", "less contrast", (0.75, 0.5, 0.4, 0.3, 0.15), digital.contrast),
        Corruption(
            "elastic_transform",
            "stretched like rubber",
            ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
            digital.elastic_transform,
            random=True,
        ),
        Corruption("pixelate", "coarser pixels", (0.95, 0.9, 0.85, 0.75, 0.65), digital.pixelate),
        Corruption("jpeg_compression", "JPEG", (80, 65, 58, 50, 40), digital.jpeg_compression),
        Corruption(
            "speckle_noise",
            "noise that grows with light",
            (0.06, 0.10, 0.12, 0.16, 0.20),
            noises.speckle_noise,
            random=True,
        ),
        Corruption("gaussian_blur", "soft", (0.4, 0.6, 0.7, 0.8, 1.0), CORRUPTIONS["gaussian_blur"].apply),
        Corruption(
            "spatter",
            "water or mud on the lens",
            (
                (0.62, 0.1, 0.7, 0.7, 0.5, False),
                (0.65, 0.1, 0.8, 0.7, 0.5, False),
                (0.65, 0.3, 1.0, 0.69, 0.5, False),
                (0.65, 0.1, 0.7, 0.69, 0.6, True),
                (0.65, 0.1, 0.5, 0.68, 0.6, True),
            ),
            weather.spatter,
            random=True,
        ),
        Corruption(
            "saturate",
            "colours paler or stronger",
            ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
            digital.saturate,
            colour_only=True,
        ),
    )
}
