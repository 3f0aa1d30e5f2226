"""20 Questions: the world file, the table, the belief over it, and the embedded world."""

import numpy as np
import pytest

from games.twentyq.prompts import normalise, same
from games.twentyq.world import EPS, WORLD, Belief, World, world_of


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


def test_no_two_keywords_of_the_world_can_be_confused(ours):
    alike = {}  # guesses that count as the same begin alike
    for word, others in ours.world.alternates.items():
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
