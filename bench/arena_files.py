"""A made-up set in the form of LMSYS's Chatbot Arena competition: train.csv and test.csv.

    python bench/arena_files.py FOLDER [--battles 20000] [--seed 0]

The battles are those of the arena's world (games/arena/world.py), whose judge prefers what stands first. The
files are a function of the flags."""

import argparse
import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from games.arena.files import TEXTS, WINNERS
from games.arena.world import battles

COLUMNS = ["id", "model_a", "model_b", *TEXTS, *WINNERS]


def write(path, rows, columns):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--battles", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    write(args.folder / "train.csv", battles(args.seed, args.battles), COLUMNS)
    write(args.folder / "test.csv", battles(args.seed, 100, stream=3), ["id", *TEXTS])
    print(f"{args.battles:,} battles in {args.folder}")


if __name__ == "__main__":
    main()
