"""How well the facts of the 20 Questions world agree with answers recorded independently.

    python bench/world_agreement.py answers.jsonl.gz [--show]

Each line of the file is {"keyword", "answers": {question: [yes count, no count]}}. A cell is compared if
keyword and question match (ignoring case, and reading "Is the word a ..." as "Is it a ...") and the counts
have a majority.
"""

import collections
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from games.rows import read_rows
from games.stats import wilson
from games.twentyq.world import World, plain


def main(path, show):
    world = World()
    counts = collections.Counter()
    for _, row in read_rows(path):
        for question, (yes, no) in row["answers"].items():
            question = re.sub(r"^is the (secret )?(word|object|item|thing) ", "is it ", question.lower())
            if world.answer(row["keyword"], question) is not None:
                counts[plain(row["keyword"]), plain(question), "yes"] += yes
                counts[plain(row["keyword"]), plain(question), "no"] += no
    cells = sorted({(keyword, question) for keyword, question, _ in counts})
    agreed, wrong = 0, collections.defaultdict(list)
    cells = [cell for cell in cells if counts[*cell, "yes"] != counts[*cell, "no"]]
    for keyword, question in cells:
        if world.answer(keyword, question) == (
            counts[keyword, question, "yes"] > counts[keyword, question, "no"]
        ):
            agreed += 1
        else:
            wrong[question].append(keyword)
    low, high = wilson(agreed, len(cells))
    keywords, questions = {keyword for keyword, _ in cells}, {question for _, question in cells}
    print(
        f"{len(cells)} cells of {len(keywords)} keywords and {len(questions)} questions: "
        f"agreement {agreed / len(cells):.4f} [{low:.4f}, {high:.4f}]"
    )
    for question, disputed in sorted(wrong.items()) if show else []:
        print(f"{world.questions[world.question_index[question]]} {', '.join(disputed)}")


if __name__ == "__main__":
    main(sys.argv[1], "--show" in sys.argv)
