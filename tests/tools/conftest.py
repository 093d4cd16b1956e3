"""The chapter that the tools are tried on, as fixtures."""

import pytest
from coin import QUIZ, coin_chapter


@pytest.fixture
def chapter():
    return coin_chapter()


@pytest.fixture
def quiz():
    return QUIZ
