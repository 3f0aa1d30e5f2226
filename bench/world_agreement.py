"""How well the facts of a 20 Questions world agree with answers recorded independently.

    python bench/world_agreement.py answers.jsonl.gz [--world FILE] [--wordings bench/wordings.txt] [--show]

Each line of the file is {"keyword", "answers": {question: [yes count, no count]}}. A cell is compared if
keyword and question match (ignoring case, and reading "Is the word a ..." as "Is it a ...") and the counts
have a majority. --wordings also compares questions that differ from the world's only in wording.
"""

import argparse
import collections
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from games.rows import read_rows
from games.stats import wilson
from games.twentyq.world import plain, world_of


def read_wordings(path, world):
    """{plain text of another wording: the world's question}. The file has a question of some world a line,
    followed by its other wordings, indented; questions that this world does not have are left out."""
    question_of = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if not line.startswith(" "):
            question = line
        elif plain(question) in world.question_index:
            question_of[plain(line)] = question
    return question_of


def count_answers(path, world, question_of):
    """Counter of (index of the keyword, index of the question, wording, "yes" or "no")."""
    counts = collections.Counter()
    for _, row in read_rows(path):
        k = world.keyword_index.get(plain(row["keyword"]))
        if k is None:
            continue
        for question, (yes, no) in row["answers"].items():
            wording = re.sub(r"^is the (secret )?(word|object|item|thing) ", "is it ", question.lower())
            text = question_of.get(plain(wording), wording)
            q = world.question_index.get(plain(text))
            if q is not None:
                counts[k, q, plain(wording), "yes"] += yes
                counts[k, q, plain(wording), "no"] += no
    return counts


def main(options):
    world = world_of(options.world)
    question_of = read_wordings(options.wordings, world) if options.wordings else {}
    counts = count_answers(options.answers, world, question_of)
    agreed = 0
    wrong = collections.defaultdict(list)  # index of the question -> keywords
    cells = sorted({key[:3] for key in counts})
    cells = [cell for cell in cells if counts[*cell, "yes"] != counts[*cell, "no"]]
    for k, q, wording in cells:
        if world.table[k, q] == (counts[k, q, wording, "yes"] > counts[k, q, wording, "no"]):
            agreed += 1
        else:
            wrong[q].append(world.keywords[k])
    low, high = wilson(agreed, len(cells))
    print(
        f"{len(cells)} cells of {len({k for k, _, _ in cells})} keywords and {len({q for _, q, _ in cells})} "
        f"questions: agreement {agreed / len(cells):.4f} [{low:.4f}, {high:.4f}]"
    )
    for q, disputed in sorted(wrong.items()) if options.show else []:
        print(f"{world.questions[q]} {', '.join(disputed)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("answers")
    parser.add_argument("--world", default="", help="a world file; by default the embedded world")
    parser.add_argument("--wordings", type=Path, help="other wordings of questions")
    parser.add_argument("--show", action="store_true", help="print the cells that disagree")
    main(parser.parse_args())
