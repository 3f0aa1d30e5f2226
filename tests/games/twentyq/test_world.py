"""20 Questions: the world file, the table, the belief over it, and the embedded world."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest

from games.twentyq.contest.rules import answer_by_rule
from games.twentyq.prompts import correct, normalise, same
from games.twentyq.task import Options, TwentyQuestions
from games.twentyq.world import EPS, LARGE_WORLD, WORLD, Belief, World, plain, read_keywords, world_of

# of the keywords of Kaggle's environment (kaggle-environments 1.16.11), without case, spaces and punctuation,
# one a line in alphabetical order
KAGGLE_SHA256 = "16e6b45f7c5497c9"


# ------------------------------------------------------------------------------------------ the world file
@pytest.mark.parametrize(
    "text, line, what",
    [
        ("[questions]\nbig Is it big?\n[keywords]\n# a comment\noak : -bigg", 5, "bigg"),
        ("[questions]\nbig Is it big?\n[keywords]\noak < tree : big", 4, "tree"),
        ("[questions]\nbig Is it big?\n[keywords]\noak : big\noak :", 5, "oak"),
        ("[questions]\nbig Is it big?\nbig Is it really big?", 3, "big"),
        ("[questions]\nbig", 2, "big"),
        ("[questoins]\nbig Is it big?", 2, "outside"),
    ],
)
def test_a_broken_world_file_is_an_error_that_names_file_and_line(tmp_path, text, line, what):
    path = tmp_path / "broken.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=what) as error:
        World(path)
    assert f"{path}, line {line}:" in str(error.value)


def test_a_missing_or_empty_world_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.txt"):
        World(tmp_path / "nowhere.txt")
    (tmp_path / "empty.txt").write_text("[questions]\nbig Is it big?\n[keywords]\n")
    with pytest.raises(ValueError, match=r"empty.txt: no keywords"):
        World(tmp_path / "empty.txt")


def test_the_embedded_world_is_found_by_no_name_and_by_those_that_runs_have_saved():
    embedded = World(WORLD)
    saved = "", "/an/older/games/worlds/twentyq.txt", "/elsewhere/games/twentyq/world.txt", str(WORLD)
    assert all(world_of(path).keywords == embedded.keywords for path in saved)
    with pytest.raises(FileNotFoundError, match="my_world.txt"):
        world_of("/elsewhere/my_world.txt")


def test_the_large_world_is_found_by_the_path_that_a_run_elsewhere_has_saved():
    assert world_of("/elsewhere/games/twentyq/kaggle.txt").keywords == World(LARGE_WORLD).keywords
    with pytest.raises(FileNotFoundError, match="kaggle.txt"):
        world_of("/elsewhere/kaggle.txt")


def test_a_world_that_exists_under_a_saved_name_is_that_world(tmp_path, world_file):
    (tmp_path / "games" / "twentyq").mkdir(parents=True)
    own = tmp_path / "games" / "twentyq" / "world.txt"
    own.write_bytes(world_file.read_bytes())
    assert len(world_of(str(own)).keywords) == 8


def test_kinds_are_inherited_and_a_minus_takes_a_tag_away(tmp_path):
    path = tmp_path / "world.txt"
    path.write_text(
        "[questions]\nalive Is it alive?\nflies Can it fly?\n[kinds]\nbird : alive flies\nfree\n[keywords]\n"
        "robin < bird, free # a comment\npenguin < bird : -flies | penguin bird, \nrock\n"
    )
    world = World(path)
    assert world.table.tolist() == [[True, True], [True, False], [False, False]]
    assert world.alternates == {"robin": [], "penguin": ["penguin bird"], "rock": []}
    assert world.kinds == {"robin": "bird", "penguin": "bird", "rock": ""}


def test_answer_is_none_for_what_the_world_does_not_know(task):
    assert task.world.answer("Eagle", "can it FLY") is True
    assert task.world.answer("zebra", "Can it fly?") is None
    assert task.world.answer("eagle", "Is it striped?") is None


# ------------------------------------------------------------------------------------------ the belief
def test_belief_is_the_posterior_by_bayes(task):
    world = task.world
    turns = [("Is it alive?", "yes"), ("Can it fly?", "no"), ("Is it bigger than a person?", "no")]
    belief = Belief(world).after([*turns, ("Can you eat it?", "unsure"), ("Is it striped?", "yes")])
    # by hand: answers that agree with (alive, flies, big) = yes, no, no; the others teach nothing
    agree = dict(eagle=2, mouse=3, elephant=2, oak=2, apple=3, spoon=2, plane=0, stone=2)
    weights = {word: (1 - EPS) ** n * EPS ** (3 - n) for word, n in agree.items()}
    expected = [weights[word] / sum(weights.values()) for word in world.keywords]
    np.testing.assert_allclose(belief.probabilities(), expected, rtol=1e-12)
    assert {world.keywords[k] for k in belief.guesses(2)} == {"mouse", "apple"}
    with pytest.raises(ValueError, match="perhaps"):
        belief.learn("Is it alive?", "perhaps")


def test_belief_asks_the_question_nearest_to_half_and_never_one_twice(task):
    belief = Belief(task.world)
    assert task.world.questions[belief.questions()[0]] == "Is it alive?"  # 5 of 8, the nearest to a half
    seen = []
    for _ in task.world.questions:
        seen += belief.questions()
        belief.update(seen[-1], "yes")
    assert sorted(seen) == list(range(6))


def test_belief_asks_what_tells_most_of_its_pool(ours):
    belief = Belief(ours.world, 40)
    assert belief.pool.tolist() == ours.world.separating(40)
    for answer in ("no", "yes", "yes"):
        most = belief.pool[np.where(belief.unasked, belief.information(), 0).argmax()]
        assert belief.questions() == [most]
        belief.update(most, answer)


def test_separating_picks_the_questions_that_tell_all_apart(tmp_path):
    digits, rest = range(4), range(12)
    lines = ["[questions]", *(f"r{i} Is it red {i}?" for i in rest), *(f"d{i} Digit {i}?" for i in digits)]
    lines += ["[keywords]"]
    for k in range(16):
        own = [f"d{i}" for i in digits if k >> i & 1] + [f"r{i}" for i in rest if k in (i, i + 1)]
        lines.append(f"thing {k} : {' '.join(own)}")
    path = tmp_path / "digits.txt"
    path.write_text("\n".join(lines))
    world = World(path)
    chosen = world.separating(4)
    assert {world.questions[q] for q in chosen} == {f"Digit {i}?" for i in digits}
    assert len({tuple(row) for row in world.table[:, chosen]}) == 16
    assert sorted(world.separating(99)) == list(range(16))  # never one twice


def test_questions_chosen_by_a_sample_of_the_keywords_separate_all_of_them_nearly_as_well(monkeypatch):
    patterns = []
    for sample in (1000, 120):  # of 439 keywords: all, and every fourth
        monkeypatch.setattr("games.twentyq.world.SAMPLE", sample)
        world = World(WORLD)
        patterns.append(len({row.tobytes() for row in world.table[:, world.separating(20)]}))
    assert patterns[0] != patterns[1] > 0.9 * patterns[0]


# ------------------------------------------------------------------------------------------ our own world
def test_the_world_holds_400_keywords_and_150_questions_that_differ(ours):
    world = ours.world
    assert len(world.keywords) >= 400 and len(world.questions) >= 150
    assert [question for question in world.questions if not question.endswith("?")] == []
    assert len(world.question_index) == len(world.questions)
    assert len({row.tobytes() for row in world.table}) == len(world.keywords)


def test_every_question_of_the_world_has_five_yes_and_five_no(ours):
    yes = ours.world.table.sum(0)
    few = np.minimum(yes, len(ours.world.keywords) - yes) < 5
    assert [ours.world.questions[q] for q in np.flatnonzero(few)] == []


@pytest.mark.parametrize("path", [WORLD, LARGE_WORLD], ids=lambda path: path.name)
def test_no_two_keywords_of_a_world_can_be_confused(path):
    alike = {}  # guesses that count as the same begin alike
    for word, others in World(path).alternates.items():
        for text in (word, *others):
            alike.setdefault(normalise(text)[:2], []).append((text, word))
    confused = [
        (a, b)
        for group in alike.values()
        for i, (a, one) in enumerate(group)
        for b, other in group[i + 1 :]
        if one != other and same(a, b)
    ]
    assert confused == []


@pytest.mark.parametrize("noise, least", [(0.0, 1.0), (0.1, 0.9)])
def test_the_table_player_finds_what_is_in_the_world(ours, noise, least):
    episodes = ours.play(ours.examples("test")[:200], ours.table_player(), noise=noise)
    assert np.mean([episode.reward > 0 for episode in episodes]) >= least


# ------------------------------------------------------------------------------------------ the large world
@pytest.fixture(scope="module")
def large():
    return TwentyQuestions(Options(world=str(LARGE_WORLD)))


def test_the_large_world_holds_2500_keywords_and_300_questions_that_differ(large):
    world = large.world
    assert len(world.keywords) >= 2500 and len(world.questions) >= 300
    assert [question for question in world.questions if not question.endswith("?")] == []
    assert len(world.question_index) == len(world.questions)
    assert len({row.tobytes() for row in world.table}) == len(world.keywords)


def test_the_large_world_is_read_in_two_seconds():
    start = time.process_time()
    World(LARGE_WORLD)
    assert time.process_time() - start < 2


def test_every_question_of_the_large_world_has_25_yes_and_25_no(large):
    """A question that few keywords answer with yes is asked late, once the belief knows the kind: "Is it a
    fish?" tells nothing about places and a bit among animals. Below 25 it would split too few."""
    yes = large.world.table.sum(0)
    few = np.minimum(yes, len(large.world.keywords) - yes) < 25
    assert [large.world.questions[q] for q in np.flatnonzero(few)] == []


def test_no_question_of_the_large_world_is_about_spelling(large):
    by_rule = [text for text in large.world.questions if answer_by_rule("oak tree", text) is not None]
    assert by_rule == []


def test_the_large_world_knows_all_keywords_of_kaggle(large):
    world = large.world
    examples = read_keywords(LARGE_WORLD.with_name("kaggle_words.txt"))
    assert len(examples) == 578  # Kaggle's list has 579, one of them twice
    text = "\n".join(sorted(plain(example["keyword"]) for example in examples))
    assert hashlib.sha256(text.encode()).hexdigest().startswith(KAGGLE_SHA256)
    for example in examples:
        word = world.keywords[world.keyword_index[plain(example["keyword"])]]
        assert all(correct(text, word, *world.alternates[word]) for text in example["alternates"])


def test_every_list_of_other_wordings_belongs_to_a_question_of_the_large_world(large):
    text = (Path(__file__).parents[3] / "bench" / "wordings.txt").read_text(encoding="utf-8")
    questions = [line for line in text.splitlines() if line[0] not in "# "]
    assert len(questions) > 50
    assert [line for line in questions if plain(line) not in large.world.question_index] == []


# tags of the large world, each line: all keywords with the first tag have the others
IMPLIED = """
bird animal; fish animal; insect spineless; reptile animal; spineless animal; pet animal; zoo animal
plant nature; tree plant; job person; clothing wear; wear touch; vehicle object; tool object; container object
food edible; fruit edible; vegetable edible; dessert edible; drink edible; meat edible; fried edible
building place; country named; capital city; city place; region named; landmark named; river waterbody
vast huge; huge big; big shoebox; heavy catweight; pocket onehand; onehand carry; lighter onehand
fourlegs legs; plug electric; battery electric; chip electric; carpart car; carpart part; sealife alive
crowd tenmillion; tenmillion million; eu europe; westeur europe; eastasia asia; westafrica africa
flagred country; flagblue country; flaggreen country; flagyellow country; flagstar country; monarchy country
"""
# no keyword has both tags
EXCLUDED = """
old modern; heavy lighter; catweight pocket; solid liquid; animal plant; coast landlocked; huge fitdoor
cheap expensive; kids adults; shoebox pocket; heavy carry; concept touch; islam christian; hard soft
tropics coldplace; english spanish; person place; bird mammal; fruit drink; herbivore plant
"""


def pairs(text):
    """The pairs of tags in a table like IMPLIED."""
    return [pair.split() for line in text.split("\n") for pair in line.split(";") if pair.strip()]


def keywords_by_tag(path):
    """{tag: the keywords of a world file that have it}."""
    world = World(path)
    section = Path(path).read_text(encoding="utf-8").split("\n[questions]\n")[1].split("\n[kinds]\n")[0]
    tags = [line.split()[0] for line in section.split("\n") if line.endswith("?")]
    assert len(tags) == len(world.questions)
    return {tag: set(np.array(world.keywords)[world.table[:, q]]) for q, tag in enumerate(tags)}


def test_the_facts_of_the_large_world_do_not_contradict_each_other():
    words = keywords_by_tag(LARGE_WORLD)
    broken = {f"{a} without {b}": words[a] - words[b] for a, b in pairs(IMPLIED)}
    broken |= {f"{a} and {b}": words[a] & words[b] for a, b in pairs(EXCLUDED)}
    assert {rule: found for rule, found in broken.items() if found} == {}


@pytest.mark.parametrize("noise, least", [(0.0, 0.95), (0.1, 0.6)])
def test_the_table_player_finds_what_is_in_the_large_world(large, noise, least):
    episodes = large.play(large.examples("test")[:60], large.table_player(), noise=noise)
    assert np.mean([episode.reward > 0 for episode in episodes]) >= least
