"""A made-up set in the form of Eedi's competition: train.csv, test.csv and misconception_mapping.csv.

    python bench/eedi_files.py FOLDER [--questions 4000] [--seed 0] [--crowd ENCODER]

The questions are those of Eedi's world (games/eedi/world.py), each about one of some things. A label is an
error of one family with one thing, in one of several wordings, often with a reason that no question shows. So
labels crowd as the competition's do. Things are rare or frequent, and a part of the labels occurs in no row.
--crowd prints the mean similarity of a label to its nearest other under an encoder. The files are a function
of the flags."""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from games.eedi import world
from games.eedi.files import COLUMNS, LABEL_COLUMNS, MAPPING

KINDS = 11  # things that the questions of a family are about
NOUNS = """
apples; bus journeys; candles; chairs; clouds; coins; flour; rainy days; dogs; eggs; fish; flights; goals;
chess; marbles; sleep; scarves; lamps; letters; books; paint; bread; rope; bicycles; notes; pages; parcels;
pets; planks; shoes; uncles; railways; sand; seats; sugar; steps; temperatures; tents; trees; votes;
windows; yoghurt; bees; carpets; violins; stamps; bricks; kites; medals; passwords; potatoes; rivers"""
PLACES = """
in a crate; at the harbour; for a birthday; in the hall; seen from Oslo; in a jar; at the mill; last winter;
at a show; on the farm; in a pond; above the sea; in the final; at the club; under a bed; after midnight;
from grandmother; along the street; by post; in the library; on the ceiling; at the baker's; down a well;
around the lake; on the piano; in a diary; on a van; at the vet's; on the roof; in a sale; at the wedding;
through the tunnel; on the beach; in the theatre; in the kitchen; up the tower; at noon; in the woods;
behind the museum; on election day; inside the castle; for the astronauts"""
REASONS = """
copied from the line above; guessed under pressure; misled by a diagram; after half of the sentence;
believing that order never matters; from a rule learned by heart; mixing up lessons; trusting a calculator;
because it looks neater; since it worked last time; as larger answers feel right; counting on fingers;
without checking any units; a habit of primary school; seeing a symbol as a letter; in a hurry; as in the
worked example; confusing everyday words; thinking that zero means nothing; drawing it badly; stopping where
it gets hard; so that the answer is even; to avoid fractions; reading from right to left; by symmetry;
forgetting what was asked; from a friend's notes; taking the picture as exact; assuming everything is equal;
because negative answers feel wrong; going by the last digit; out of politeness"""
NOUNS, PLACES, REASONS = ([*map(str.strip, table.split(";"))] for table in (NOUNS, PLACES, REASONS))
WORDINGS = (
    "{Error}: {thing}",
    "{Thing}, {reason}: {error}",
    "{Reason}, {error} with {thing}",
    "{Error}, {reason}, given {thing} ({subject})",
    "Sees {thing} and {error}, {reason}",
    "In {subject} about {thing}, {error}",
    "Cannot {construct} for {thing}: {error}, {reason}",
    "Thinks that {thing} are special, {reason}, and {error}",
)
LABELLED = 0.78  # share of the wrong answers that have a label, as in the competition


def make_labels(rng):
    """{(family, error, thing): text} in random order, each text once."""
    keys = []
    for family in world.FAMILIES:
        for noun, place in zip(rng.permutation(NOUNS)[:KINDS], rng.permutation(PLACES)):
            keys += [(family, error, f"{noun} {place}", noun, place) for error in family.labels]
    labels = {}
    for place in rng.permutation(len(keys)):
        family, error, thing, *halves = keys[place]
        words = {
            "error": world.ERRORS[error],
            "thing": halves[rng.integers(2)],
            "reason": REASONS[rng.integers(len(REASONS))],
            "construct": family.construct.lower(),
            "subject": family.subject.lower(),
        }
        words |= {name.capitalize(): text.capitalize() for name, text in words.items()}
        labels[family, error, thing] = WORDINGS[rng.integers(len(WORDINGS))].format(**words)
    return labels


def make_rows(rng, count, labels):
    """Rows of train.csv as dicts. The things of a family are as frequent as 1, 1/2, 1/3 ..."""
    ids = {key: number for number, key in enumerate(labels)}
    shares = 1 / np.arange(1, KINDS + 1)
    things_of = {}
    for family, _, thing in labels:  # in random order
        things_of.setdefault(family, {})[thing] = None
    for number in range(count):
        row = world.question(rng, number, unseen=True)
        family = world.FAMILIES[row["ConstructId"]]
        thing = [*things_of[family]][rng.choice(KINDS, p=shares / shares.sum())]
        row["QuestionText"] += f" This is about {thing}."
        for name in LABEL_COLUMNS:
            label = row[name]
            row[name] = ""
            if label is not None and rng.random() < LABELLED:
                _, error = world.OWNERS[label]
                row[name] = float(ids[family, error, thing])  # the competition's files write 1672.0
        yield row


def write(path, columns, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def crowd(texts, encoder):
    """The mean similarity of a text to its nearest other."""
    import checkpoint

    vectors = checkpoint.open(encoder, "none").embedder.embed(texts)
    near = vectors @ vectors.T
    near.fill_diagonal_(-1)
    return float(near.amax(1).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crowd", default="")
    args = parser.parse_args()
    rng = np.random.default_rng([args.seed, 7])
    labels = make_labels(rng)
    rows = list(make_rows(rng, args.questions, labels))
    args.folder.mkdir(parents=True, exist_ok=True)
    names = [{"MisconceptionId": i, "MisconceptionName": text} for i, text in enumerate(labels.values())]
    write(args.folder / MAPPING, ["MisconceptionId", "MisconceptionName"], names)
    write(args.folder / "train.csv", COLUMNS + LABEL_COLUMNS, rows)
    write(args.folder / "test.csv", COLUMNS, list(make_rows(rng, 20, labels)))
    used = {row[name] for row in rows for name in LABEL_COLUMNS} - {""}
    pairs = sum(row[name] != "" for row in rows for name in LABEL_COLUMNS)
    print(f"{len(labels):,} labels, {len(used):,} of them in {len(rows):,} questions with {pairs:,} labels")
    if args.crowd:
        texts = list(labels.values())
        print(f"similarity of a label to its nearest other: {crowd(texts, args.crowd):.3f}")


if __name__ == "__main__":
    main()
