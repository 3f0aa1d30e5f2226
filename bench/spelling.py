"""How well a 20 Questions model answers questions about spelling, which a rule always answers correctly.

    python bench/spelling.py RUN

Asks the example question of each kind of rule (games/twentyq/contest/rules.py) about every keyword of the
world. Prints the model's accuracy on true and on false cells, with 95 % Wilson intervals, and the mean of the
two."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import checkpoint
from agents import Model
from games.stats import wilson
from games.twentyq.contest.rules import HANDSHAKE, RULES, answer_by_rule
from games.twentyq.prompts import answer_prompt
from games.twentyq.world import world_of


def main(run):
    opened = checkpoint.open(run)
    agent = Model(opened.model, opened.tokenizer)
    questions = [example for *_, example in RULES if example != HANDSHAKE]
    cells = [(word, question) for word in world_of().keywords for question in questions]
    truth = [answer_by_rule(*cell) for cell in cells]
    says = agent.choose([answer_prompt(*cell) for cell in cells], ["yes", "no"])
    rates = []
    for answer in ("yes", "no"):
        right = [(yes > no) == (true == "yes") for true, (yes, no) in zip(truth, says) if true == answer]
        rates.append(sum(right) / len(right))
        print(
            "{}: {:.3f} [{:.3f}, {:.3f}] of {:,}".format(
                answer, rates[-1], *wilson(sum(right), len(right)), len(right)
            )
        )
    print(f"balanced: {sum(rates) / 2:.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
