"""The games, by the name that --task takes."""

from games.arc import Arc
from games.arena import Arena
from games.eedi import Eedi
from games.reasoning import Reasoning
from games.twentyq import TwentyQuestions

TASKS = {"20q": TwentyQuestions, "arc": Arc, "arena": Arena, "eedi": Eedi, "reasoning": Reasoning}
