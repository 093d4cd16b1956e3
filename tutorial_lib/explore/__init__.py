"""Pictures that answer back: sliders that work with a kernel and without, and a pad to draw digits on.

``explore`` turns a function that draws into a picture with one or two sliders. ``draw_digit`` lets a reader write a
digit and see what a network makes of it. Both leave a picture that needs neither Python nor a network in the page.
"""

from tutorial_lib.explore.control import Control
from tutorial_lib.explore.digit_pad import DigitPad, draw_digit
from tutorial_lib.explore.explorable import Explorable, explore

__all__ = ["Control", "DigitPad", "Explorable", "draw_digit", "explore"]
