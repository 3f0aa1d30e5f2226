"""The game on its own world, which many tests of 20 Questions share."""

import pytest

from games.twentyq.task import TwentyQuestions


@pytest.fixture(scope="session")
def ours():
    return TwentyQuestions()
