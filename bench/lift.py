"""The gain from Agent Alpha in a tournament of 20 Questions (infer.py eval --against ... --out EVAL.json).

    python bench/lift.py EVAL.json alpha+runs/base runs/base

Prints the rating of the first agent minus that of the second, with the 95 % interval of a bootstrap over
games, and how often teams found the keyword (first or at the same time), by the part of their guesser and
answerer in the protocol.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from games.stats import wilson
from games.twentyq.contest.tournament import fit, interval, teams_of

KINDS = {"alpha": "answers by rule", "half": "answers by rule", "false": "pretends"}


def main(path, one, other):
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    names = [row["agent"] for row in report["tournament"]]
    ratings = fit(names, report["records"], report["seed"], bootstraps=1000)
    gap = ratings[:, names.index(one)] - ratings[:, names.index(other)]
    print("{} less {}: {:+.0f} [{:.0f}, {:.0f}]".format(one, other, *interval(gap[:, None]).ravel()))
    found = {}
    for team in teams_of(report["records"]):
        guesser, answerer = (team[seat].partition("+")[0] for seat in ("guesser", "answerer"))
        kinds = "Alpha" if guesser == "alpha" else "another", KINDS.get(answerer, "is another")
        found.setdefault(kinds, []).append(team["reward"] > 0)
    for (guesser, answerer), won in sorted(found.items()):
        low, high = wilson(sum(won), len(won))
        print(
            f"guesser {guesser:8} partner {answerer:16}{sum(won):4} of {len(won):4} [{low:.2f}, {high:.2f}]"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
