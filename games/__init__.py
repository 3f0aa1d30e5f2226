"""The games, by the name that --task takes."""

from games.twentyq import TwentyQuestions

TASKS = {"20q": TwentyQuestions}
