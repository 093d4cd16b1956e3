"""What every test of a picture needs: the course's style, and no figure left open."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from tutorial_lib.plots import use_style


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        use_style()
        yield
        plt.close("all")


@pytest.fixture
def axes():
    """Empty axes to draw into."""
    return plt.subplots()[1]
