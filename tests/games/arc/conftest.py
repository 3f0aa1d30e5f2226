"""Epochs of the world are small here: a run surveys one, and a tokenizer is learned from its tasks."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def small_epochs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("games.arc.task.TASKS", 60)
        yield
