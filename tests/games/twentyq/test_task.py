"""20 Questions: rules, prompts, the table player, play, recorded games, the world file, the terminal."""

import gzip
import json
import math

import numpy as np
import pytest

from games.task import Reply
from games.twentyq import terminal
from games.twentyq.prompts import (
    ANSWERER,
    answer_prompt,
    ask_prompt,
    correct,
    guess_prompt,
    last_line,
    normalise,
    read_prompt,
    reward,
    same,
    yes_or_no,
)
from games.twentyq.task import Options, TwentyQuestions
from games.twentyq.world import EPS, WORLD, Belief, TablePlayer, World, plain


class Ranked:
    """An agent that always has the same ideas, best first, and remembers what it was asked."""

    def __init__(self, *ideas):
        self.ideas, self.heard = ideas, []

    def reply(self, conversations, n=1):
        self.heard += conversations
        return [[Reply(idea) for idea in self.ideas[:n]] for _ in conversations]


class Recorded(TablePlayer):
    """The table player, and every conversation it was handed."""

    def reply(self, conversations, n=1):
        self.heard = getattr(self, "heard", []) + list(conversations)
        return super().reply(conversations, n)


class Chooser(TablePlayer):
    """The table player with probabilities: of answers by the table, of guesses by the belief."""

    def choose(self, conversations, choices):
        rows = []
        for conversation in conversations:
            seat, content = read_prompt(conversation)
            if seat == "answerer":
                right = "yes" if self.world.answer(*content) else "no"
                rows.append([math.log(0.9 if choice == right else 0.1) for choice in choices])
            else:
                self.texts(conversation, 1)
                share = self.belief.probabilities()
                places = [self.world.keyword_index.get(plain(choice)) for choice in choices]
                rows.append([math.log(1e-9 if place is None else share[place]) for place in places])
        return rows


def wandering():
    """An agent with 30 ideas, none of them right."""
    return Ranked(*(f"idea {i}" for i in range(30)))


def outcome(episodes):
    return [(episode.example, episode.turns, episode.reward) for episode in episodes]


def text_of(conversation):
    return "\n".join(message["content"] for message in conversation)


# ------------------------------------------------------------------------------------------------ rules
@pytest.mark.parametrize(
    "a, b",
    [
        ("theater", "ater"),
        ("mother", "mor"),
        ("the Moon", "moon"),
        ("ice cream", "icecream"),
        ("Ice-Cream!", "ice cream"),
        ("rock 'n' roll", "rocknroll"),
        ("cat", "cats"),
        ("cats", "cat"),
        ("box", "boxes"),
        ("bus", "buses"),
        ("glass", "glas"),
        ("mothers", "mors"),
        ("mothers", "mor"),
        ("bike path", "bike paths"),
    ],
)
def test_these_guesses_are_the_same(a, b):
    assert same(a, b) and same(b, a)


@pytest.mark.parametrize(
    "a, b",
    [
        ("bikes path", "bike path"),
        ("café", "cafe"),
        ("ox", "oxes"),
        ("as", "a"),
        ("cat", "catss"),
        ("cat", "bat"),
        ("party", "parties"),
        ("city’s", "citys"),
        ("boxeses", "box"),
    ],
)
def test_these_guesses_are_different(a, b):
    assert not same(a, b) and not same(b, a)


def test_normalise_deletes_the_inside_words_spaces_and_ascii_punctuation():
    assert normalise("The Mother-in-law's Theater") == "morinlawsater"


def test_alternates_count_as_the_keyword():
    assert correct("Apples", "pear", ["apple"])
    assert not correct("apple", "pear", ["plum"])


@pytest.mark.parametrize(
    "text, meaning",
    [
        ("yes", "yes"),
        ("YES!", "yes"),
        ("no", "no"),
        ("not yes", "yes"),
        ("eyes", "yes"),
        ("I do not know", "no"),
        ("maybe", None),
        ("", None),
    ],
)
def test_yes_or_no(text, meaning):
    assert yes_or_no(text) == meaning


@pytest.mark.parametrize("won, score", [(1, 20), (2, 19), (5, 16), (10, 11), (20, 1), (None, -1)])
def test_reward(won, score):
    assert reward(won) == score


def test_a_question_is_cut_at_750_and_a_guess_at_100_characters(task):
    answerer = Ranked("no")
    episode = task.play([{"keyword": "eagle"}], Ranked("x" * 2000), answerer, repeats=True)[0]
    assert {len(turn["question"]) for turn in episode.turns} == {750}
    assert {len(turn["guess"]) for turn in episode.turns} == {100}
    assert {read_prompt(heard)[1][1] for heard in answerer.heard} == {"x" * 750}


def test_a_guess_counts_as_it_stands_after_the_cut(task):
    task.world.alternates["eagle"] = ["y" * 100]
    assert task.play([{"keyword": "eagle"}], Ranked("y" * 100 + "z"))[0].reward == 20


def test_a_question_over_the_limit_is_still_recognised_as_a_repeat(task):
    episode = task.play([{"keyword": "eagle"}], Ranked("x" * 2000, "y"))[0]
    assert [turn["repeated"] for turn in episode.turns[:3]] == [False, False, True]


# ------------------------------------------------------------------------------------------------ prompts
def test_play_hands_agents_the_prompts_of_training(world_file):
    task = TwentyQuestions(
        Options(world=str(world_file), cells=6, opening=2, flips=0.0, explore=0.0, unsure=0.0)
    )
    for example in task.examples("test"):
        chats = task.items(example, np.random.default_rng(0))
        trained = [chat.messages[:-1] for chat in chats]
        asker = Recorded(task, task.world, task.options.pool, task.options.opening)
        answerer = Recorded(task, task.world)
        episode = task.play([example], asker, answerer)[0]
        assert len(asker.heard) >= 2 * len(episode.turns) and len(answerer.heard) == len(episode.turns)
        assert all(heard in trained for heard in asker.heard + answerer.heard)


def test_training_teaches_only_the_reply(task):
    for chat in task.items({"keyword": "oak"}, np.random.default_rng(1)):
        assert chat.learn == "last" and chat.messages[-1]["role"] == "assistant"
        assert chat.messages[-2]["role"] == "user"


def test_the_asker_never_sees_the_keyword(task):
    for example in task.examples("test"):
        asker = Recorded(task, task.world)
        task.play([example], asker, noise=0.3)
        assert asker.heard and not any(example["keyword"] in text_of(heard) for heard in asker.heard)


def test_the_asker_sees_the_same_whatever_the_keyword_as_long_as_the_answers_stay(task):
    heard = []
    for keyword in ("eagle", "stone", "oak", "a thing outside the world"):
        agent = wandering()
        answers = iter("yes no no yes yes no".split() * 4)
        answerer = Ranked()
        answerer.reply = lambda conversations, n=1, answers=answers: [[Reply(next(answers))]]
        task.play([{"keyword": keyword}], agent, answerer)
        heard.append(agent.heard)
    assert len(heard[0]) >= 40 and all(one == heard[0] for one in heard[1:])


def test_past_guesses_are_not_shown(task):
    agent = wandering()
    turns = task.play([{"keyword": "eagle"}], agent)[0].turns
    assert "idea 5" in text_of(ask_prompt([(turns[5]["question"], "no")]))
    questions = [turn["question"] for turn in turns]
    for heard in agent.heard:
        seat, history = read_prompt(heard)
        said = [message["content"] for message in heard if message["role"] == "assistant"]
        assert said == questions[: len(history)]


@pytest.mark.parametrize(
    "turns", [[("Is it big?", "yes")], [("Is it big?", "no"), ("What is the keyword?", "yes")]]
)
def test_read_prompt_inverts_asker_and_guesser_prompts(turns):
    assert read_prompt(ask_prompt(turns)) == ("asker", turns)
    assert read_prompt(guess_prompt(turns)) == ("guesser", turns)


def test_read_prompt_inverts_the_first_prompt_and_the_answerers():
    assert read_prompt(ask_prompt([])) == ("asker", [])
    content = ("ice cream", "Is it cold?")
    assert read_prompt(answer_prompt(*content)) == ("answerer", content)


def test_last_line_is_what_counts_of_a_longer_reply():
    assert last_line("I think\n\n  Is it big?  \n") == "Is it big?"
    assert last_line(" \n") == ""


# ------------------------------------------------------------------------------------------------ the table
def test_the_table_player_wins_every_game_without_noise(task):
    episodes = task.play(task.examples("test"), task.table_player())
    assert [episode.reward > 0 for episode in episodes] == [True] * 8


def test_belief_is_the_posterior_by_bayes(task):
    world = task.world
    belief = Belief(world)
    belief.update(world.question_index[plain("Is it alive?")], "yes")
    belief.update(world.question_index[plain("Can it fly?")], "no")
    belief.update(world.question_index[plain("Is it bigger than a person?")], "no")
    belief.update(world.question_index[plain("Can you eat it?")], "unsure")  # teaches nothing
    # by hand: answers that agree with (alive, flies, big) = yes, no, no
    agree = dict(eagle=2, mouse=3, elephant=2, oak=2, apple=3, spoon=2, plane=0, stone=2)
    weights = {word: (1 - EPS) ** n * EPS ** (3 - n) for word, n in agree.items()}
    expected = [weights[word] / sum(weights.values()) for word in world.keywords]
    np.testing.assert_allclose(belief.probabilities(), expected, rtol=1e-12)
    assert {world.keywords[k] for k in belief.guesses(2)} == {"mouse", "apple"}


def test_belief_asks_the_question_nearest_to_half_and_never_one_twice(task):
    belief = Belief(task.world)
    assert task.world.questions[belief.questions()[0]] == "Is it alive?"  # 5 of 8, the nearest to a half
    seen = []
    for _ in task.world.questions:
        seen += belief.questions()
        belief.update(seen[-1], "yes")
    assert sorted(seen) == list(range(6))


def test_belief_asks_the_opening_first_and_in_order(task):
    world = task.world
    belief, order = Belief(world, opening=3), world.separating(6)
    for expected in order[:3]:
        assert belief.questions() == [expected]
        belief.update(expected, "no")


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


def test_separating_never_picks_a_question_twice(task):
    assert sorted(task.world.separating(99)) == list(range(6))


# ------------------------------------------------------------------------------------------------ play
def test_a_repeat_is_replaced_by_the_next_best(task):
    episode = task.play([{"keyword": "eagle"}], Ranked(*"abcdefghijklmnopqrstuvwxyz"), repeats=False)[0]
    alphabet = list("abcdefghijklmnopqrst")
    assert [turn["question"] for turn in episode.turns] == alphabet
    assert [turn["guess"] for turn in episode.turns] == alphabet
    assert not any(turn["repeated"] or turn["guess_repeated"] for turn in episode.turns)


def test_an_agent_out_of_ideas_repeats_itself_and_is_counted(task):
    turns = task.play([{"keyword": "eagle"}], Ranked("a", "b", "A!"))[0].turns
    assert [turn["repeated"] for turn in turns] == [False, False] + [True] * 18
    assert [turn["guess_repeated"] for turn in turns] == [False, False] + [True] * 18


def test_repeats_are_kept_and_counted_when_asked_for(task):
    turns = task.play([{"keyword": "eagle"}], Ranked(*"abc"), repeats=True)[0].turns
    assert [turn["question"] for turn in turns] == ["a"] * 20
    assert [turn["repeated"] for turn in turns] == [False] + [True] * 19
    assert [turn["guess_repeated"] for turn in turns] == [False] + [True] * 19


def test_a_win_ends_the_game_and_its_reward_is_of_that_round(task):
    episode = task.play([{"keyword": "oak"}], Ranked("a", "b", "c", "oak tree", "d"))[0]
    assert len(episode.turns) == 4 and episode.reward == 17


def test_an_answer_that_is_neither_counts_as_no(task):
    turns = task.play([{"keyword": "eagle"}], wandering(), Ranked("perhaps"))[0].turns
    assert {turn["answer"] for turn in turns} == {"no"}


def test_a_subset_of_games_is_played_the_same(task):
    examples, player = task.examples("test"), task.table_player()
    whole = outcome(task.play(examples, player))
    assert outcome(task.play(examples[3:6], player)) == whole[3:6]
    noisy = outcome(task.play(examples, player, noise=0.3))
    assert outcome(task.play(examples[:3], player, noise=0.3)) == noisy[:3] != whole[:3]


def flips(task, n, noise):
    episodes = task.play([{"keyword": "eagle"}] * n, Ranked("Can it fly?"), noise=noise, repeats=True)
    for turn in (turn for episode in episodes for turn in episode.turns):
        assert turn["flipped"] == (turn["answer"] == "no")  # an eagle flies
    return np.array([[turn["flipped"] for turn in episode.turns] for episode in episodes])


def test_answers_flip_at_the_stated_rate(task):
    flipped = flips(task, 400, 0.1)
    assert abs(flipped.mean() - 0.1) < 0.015  # four and a half standard errors
    assert flips(task, 20, 0.0).sum() == 0


def test_flips_follow_the_seed_and_differ_between_games(task, world_file):
    flipped = flips(task, 10, 0.3)
    assert (flips(task, 10, 0.3) == flipped).all()
    assert len({tuple(row) for row in flipped}) == 10
    assert (flips(TwentyQuestions(Options(world=str(world_file)), seed=1), 10, 0.3) != flipped).any()


def test_training_is_fresh_by_rng_and_the_same_by_seed(task):
    def lesson(seed):
        return task.items({"keyword": "oak"}, np.random.default_rng(seed))

    assert lesson(5) == lesson(5)
    assert any(lesson(seed) != lesson(5) for seed in range(6, 16))


def test_training_works_with_fewer_questions_than_rounds(world_file):
    task = TwentyQuestions(Options(world=str(world_file), cells=2, opening=2, explore=1.0, flips=0.5))
    for seed in range(20):
        for example in task.examples("train"):
            assert task.items(example, np.random.default_rng(seed))


def test_a_small_world_trains_with_the_default_options(world_file):
    task = TwentyQuestions(Options(world=str(world_file)))
    assert task.items({"keyword": "oak"}, np.random.default_rng(0))


def test_the_opening_may_be_longer_than_the_list_of_questions(world_file):
    task = TwentyQuestions(Options(world=str(world_file), cells=2, opening=9))
    assert task.items({"keyword": "oak"}, np.random.default_rng(0))


def test_evaluation_of_the_table_player_equals_its_own_baseline(task):
    result = task.evaluate(task.examples("test"), task.table_player())
    assert result["n"] == 8 and len(result["records"]) == 16
    for name, value in result["baselines"].items():
        assert result["metrics"][name] == value
    low, high = result["intervals"]["win_rate@0"]
    assert result["metrics"]["win_rate@0"] == 1 and low == pytest.approx(8 / (8 + 1.96**2)) and high <= 1


def test_answer_accuracy_is_one_for_the_table_and_half_for_one_word(task):
    truthful = task.answer_accuracy(Chooser(task, task.world), 100)
    assert truthful == dict(answerer_true=1.0, answerer_false=1.0, answerer_balanced=1.0)
    stubborn = Ranked()
    stubborn.choose = lambda conversations, choices: [[0.0, -1.0] for _ in conversations]
    assert task.answer_accuracy(stubborn, 100)["answerer_balanced"] == 0.5


# ------------------------------------------------------------------------------------------ recorded games
def games_file(folder, rows, name="games.jsonl"):
    path = folder / name
    lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    with (gzip.open if name.endswith(".gz") else open)(path, "wt", encoding="utf-8") as file:
        file.write(lines)
    return path


def recorded(world_file, path):
    return TwentyQuestions(Options(world=str(world_file), data=str(path)))


GAME = {"keyword": "eagle", "rounds": [["Is it alive?", "yes"], ["Can it swim?", " No."]]}


@pytest.mark.parametrize("name", ["games.jsonl", "games.jsonl.gz"])
def test_a_recorded_game_gives_one_chat_a_phase_and_round(world_file, tmp_path, name):
    task = recorded(world_file, games_file(tmp_path, [GAME], name))
    assert task.games == [{"keyword": "eagle", "turns": [("Is it alive?", "yes"), ("Can it swim?", "no")]}]
    turns = task.games[0]["turns"]
    expected = [
        (ask_prompt([]), "Is it alive?"),
        (ask_prompt(turns[:1]), "Can it swim?"),
        (answer_prompt("eagle", "Is it alive?"), "yes"),
        (answer_prompt("eagle", "Can it swim?"), "no"),
        (guess_prompt(turns), "eagle"),
    ]
    chats = task.items(task.games[0], np.random.default_rng(0))
    assert [(chat.messages[:-1], chat.messages[-1]["content"]) for chat in chats] == expected


@pytest.mark.parametrize(
    "row, what",
    [
        ('{"keyword": "eagle", "rounds": [["a', "JSON"),
        ("[1, 2]", "object"),
        ({"rounds": [["Is it alive?", "yes"]]}, "keyword"),
        ({"keyword": 5, "rounds": [["Is it alive?", "yes"]]}, "keyword"),
        ({"keyword": "eagle"}, "rounds"),
        ({"keyword": "eagle", "rounds": [["Is it alive?"]]}, "round"),
        ({"keyword": "eagle", "rounds": ["Is it alive?"]}, "round"),
        ({"keyword": "eagle", "rounds": [["Is it alive?", True]]}, "round"),
    ],
)
def test_a_malformed_game_is_an_error_that_names_file_and_line(world_file, tmp_path, row, what):
    path = games_file(tmp_path, [GAME, "", row])
    with pytest.raises(ValueError, match=what) as error:
        recorded(world_file, path)
    assert str(path) in str(error.value) and "line 3" in str(error.value)


def test_games_that_break_the_rules_are_dropped_and_counted(world_file, tmp_path):
    bad = {"keyword": "oak", "rounds": [["Is it alive?", "maybe"]]}
    long = {"keyword": "oak", "rounds": [["Is it alive?", "yes"]] * 21}
    full = {"keyword": "oak", "rounds": [["Is it alive?", "yes"]] * 20}
    task = recorded(world_file, games_file(tmp_path, [GAME, bad, bad, long, full]))
    assert [game["keyword"] for game in task.games] == ["eagle", "oak"]
    assert task.dropped == {"an answer other than yes, no and unsure": 2, "more than 20 rounds": 1}


def test_the_valid_split_shares_no_keyword_with_train(world_file, tmp_path):
    rows = [{"keyword": f"thing {i % 45}", "rounds": GAME["rounds"]} for i in range(90)]
    task = recorded(world_file, games_file(tmp_path, rows))
    train, valid = ([game["keyword"] for game in task.examples(split)] for split in ("train", "valid"))
    assert len(train) + len(valid) == 90 and valid
    assert not set(train) & set(valid)


def test_recorded_games_are_tested_on_the_world(world_file, tmp_path):
    task = recorded(world_file, games_file(tmp_path, [GAME]))
    assert {example["keyword"] for example in task.examples("test")} == set(task.world.keywords)


def test_a_file_without_usable_games_is_not_replaced_by_the_world(world_file, tmp_path):
    assert recorded(world_file, games_file(tmp_path, [])).examples("train") == []


# ------------------------------------------------------------------------------------------ the world file
@pytest.mark.parametrize(
    "text, line, what",
    [
        ("[questions]\nbig Is it big?\n[keywords]\n# a comment\noak : bigg", 5, "bigg"),
        ("[questions]\nbig Is it big?\n[keywords]\noak < tree : big", 4, "tree"),
        ("[questions]\nbig Is it big?\n[keywords]\noak : big\noak :", 5, "oak"),
        ("oak : big", 1, "oak"),
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


def test_kinds_are_inherited_and_a_minus_takes_a_tag_away(tmp_path):
    path = tmp_path / "world.txt"
    path.write_text(
        "[questions]\nalive Is it alive?\nflies Can it fly?\n"
        "[kinds]\nbird : alive flies\n[keywords]\nrobin < bird\npenguin < bird : -flies | penguin bird\n"
    )
    world = World(path)
    assert world.table.tolist() == [[True, True], [True, False]]
    assert world.alternates == {"robin": [], "penguin": ["penguin bird"]}


def test_answer_is_none_for_what_the_world_does_not_know(task):
    assert task.world.answer("Eagle", "can it FLY") is True
    assert task.world.answer("zebra", "Can it fly?") is None
    assert task.world.answer("eagle", "Is it striped?") is None


@pytest.fixture(scope="module")
def real():
    if not WORLD.exists():
        pytest.skip(f"{WORLD} does not exist yet")
    return TwentyQuestions()


def test_the_world_holds_400_keywords_and_150_questions(real):
    assert len(real.world.keywords) >= 400 and len(real.world.questions) >= 150


def test_no_two_keywords_of_the_world_have_the_same_answers(real):
    rows = {}
    for word, row in zip(real.world.keywords, real.world.table):
        rows.setdefault(row.tobytes(), []).append(word)
    assert [words for words in rows.values() if len(words) > 1] == []


def test_every_question_of_the_world_has_five_yes_and_five_no(real):
    yes = real.world.table.sum(0)
    few = np.minimum(yes, len(real.world.keywords) - yes) < 5
    assert [real.world.questions[q] for q in np.flatnonzero(few)] == []


def test_every_question_of_the_world_ends_with_a_question_mark_and_stands_once(real):
    assert [question for question in real.world.questions if not question.endswith("?")] == []
    assert len(real.world.question_index) == len(real.world.questions)


def test_no_two_keywords_of_the_world_can_be_confused(real):
    words = [(word, word) for word in real.world.keywords]
    words += [(other, word) for word, others in real.world.alternates.items() for other in others]
    alike = {}  # guesses that count as the same begin alike
    for said, word in words:
        alike.setdefault(normalise(said)[:2], []).append((said, word))
    confused = [
        (a, b)
        for group in alike.values()
        for i, (a, one) in enumerate(group)
        for b, other in group[i + 1 :]
        if one != other and same(a, b)
    ]
    assert confused == []


def test_the_table_player_finds_everything_in_the_world(real):
    episodes = real.play(real.examples("test")[:200], real.table_player())
    assert [episode.example["keyword"] for episode in episodes if episode.reward < 0] == []


def test_the_table_player_wins_nine_of_ten_games_in_the_world_at_ten_percent_flips(real):
    episodes = real.play(real.examples("test")[:200], real.table_player(), noise=0.1)
    assert np.mean([episode.reward > 0 for episode in episodes]) >= 0.9


# ------------------------------------------------------------------------------------------ the terminal
def asks(task, lines):
    """model_asks opposite the typed lines: (turns, guesses, what was shown)."""
    shown, rest = [], iter(lines)
    games = terminal.model_asks(task, Chooser(task, task.world), lambda: next(rest, None), shown.append)
    rounds = games[0]["rounds"] if games else []
    return [tuple(turn[:2]) for turn in rounds], [turn[2] for turn in rounds], shown


def answers(task, lines, seed=0, agent=None):
    """model_answers opposite the typed lines: (rounds, what was shown)."""
    shown, rest = [], iter(lines)
    agent = agent or Chooser(task, task.world)
    games = terminal.model_answers(task, agent, lambda: next(rest, None), shown.append, seed)
    return (games[0]["rounds"] if games else []), shown


def questions_in(shown):
    return [line.partition(": ")[2] for line in shown if line.startswith("\nRound")]


@pytest.mark.parametrize(
    "line, meaning",
    [("Y", "yes"), (" Yes! ", "yes"), ("nope", "no"), ("I don't know", "unsure"), ("That's it", "right")]
    + [("Q", "quit"), ("top", "top"), ("UNDO", "undo"), ("xyzzy", ""), ("", ""), ("yes and no", "")],
)
def test_understood(line, meaning):
    assert terminal.understood(line) == meaning


def test_nonsense_is_explained_and_asked_again(task):
    turns, _, shown = asks(task, ["xyzzy", "", "\x1b[31m", "y", "quit"])
    assert [line for line in shown if "did not understand" in line] == [shown[2]] * 3
    assert "'undo'" in shown[2] and turns == [("Is it alive?", "yes")]


def test_undo_takes_the_last_answer_and_guess_back(task):
    turns, guesses, shown = asks(task, ["y", "n", "undo", "quit"])
    assert turns == [("Is it alive?", "yes")] and len(guesses) == 1
    asked = questions_in(shown)
    assert asked[1] == asked[3] and any("Taken back" in line for line in shown)


def test_undo_before_the_first_answer_says_so(task):
    turns, _, shown = asks(task, ["undo", "quit"])
    assert turns == [] and any("no answer to take back" in line for line in shown)


def test_an_unsure_answer_teaches_nothing_and_its_question_is_not_asked_again(task):
    turns, guesses, shown = asks(task, ["u", "idk", "y", "n", "maybe", "y"])
    asked = questions_in(shown)
    assert len(set(asked[:6])) == 6
    assert [answer for _, answer in turns] == ["unsure", "unsure", "yes", "no", "unsure", "yes"]
    assert len(guesses) == 6


def test_top_shows_the_best_guesses_without_costing_a_round(task):
    turns, _, shown = asks(task, ["top", "y", "top", "quit"])
    assert any("no answer to go by" in line for line in shown)
    listed = [line.split()[-1] for line in shown if line.startswith("  ")]
    assert (
        len(turns) == 1
        and len(listed) == 5
        and set(listed) == {*("eagle", "mouse", "elephant", "oak", "apple")}
    )


def test_right_ends_the_game_with_the_last_guess(task):
    turns, guesses, shown = asks(task, ["y", "n", "right", "y", "y"])
    assert len(turns) == len(guesses) == 2
    assert shown[-1] == f"Found after 2 answers: {guesses[-1]}."


def test_right_before_any_guess_is_explained(task):
    turns, _, shown = asks(task, ["right", "quit"])
    assert turns == [] and shown.count(terminal.HELP) == 1


def test_a_wrong_guess_is_not_made_again_while_there_are_others(task):
    _, guesses, _ = asks(task, ["y"] * 8)
    assert len(set(guesses)) == 8


def test_the_last_guess_may_be_right(task):
    turns, _, shown = asks(task, ["y"] * 20 + ["y"])
    assert len(turns) == 20 and shown[-1] == "Found in the last round."


def test_a_lost_game_asks_for_the_keyword_and_tells_what_was_missed(task):
    turns, _, shown = asks(task, ["y"] * 20 + ["n", "oak tree"])
    assert len(turns) == 20 and any("my facts say no" in line for line in shown)


def test_the_end_of_input_ends_a_game_anywhere(task):
    script = ["xyzzy", "u", "top", "undo"] + ["y"] * 20 + ["n", "zebra"]
    for n in range(len(script) + 1):
        turns, guesses, shown = asks(task, script[:n])
        assert len(turns) == len(guesses) == (min(20, n - 4) if n >= 4 else n // 2) and shown


def test_missed_names_the_wrong_answers_and_the_rank(task):
    turns = [("Is it alive?", "yes"), ("Is it an animal?", "yes"), ("Can it fly?", "no")]
    lines = list(terminal.missed(task, Chooser(task, task.world), "Eagles", turns))
    assert [line for line in lines if "You said" in line] == [
        "You said no to 'Can it fly?'; my facts say yes."
    ]
    assert any(" number 3 " in line for line in lines)  # after mouse and elephant
    # answers that agree: mouse, elephant 3; eagle, oak, apple 2; spoon, stone 1; plane 0
    whole = 2 * 0.9**3 + 3 * 0.9**2 * 0.1 + 2 * 0.9 * 0.1**2 + 0.1**3
    assert any(line.endswith(f"a chance of {0.9**2 * 0.1 / whole:.1%}.") for line in lines)


def test_missed_says_when_the_world_does_not_hold_the_keyword(task):
    lines = list(terminal.missed(task, Chooser(task, task.world), "zebra", [("Is it alive?", "yes")]))
    assert "does not hold it" in lines[-1]


def test_the_answerer_names_its_keyword_at_the_end_of_input(task):
    script = ["list", "undo", "??", "Can it fly?", "nothing", "Is it alive?", ""]
    for n in range(len(script) + 1):
        rounds, shown = answers(task, script[:n])
        assert any(line.startswith("It was: ") for line in shown)
        assert len(rounds) == max(0, min(2, (n - 2) // 2))


def test_the_answerer_answers_by_its_keyword_and_a_right_guess_ends_the_game(task):
    for seed in range(5):
        keyword = next(line for line in answers(task, [], seed)[1] if "It was" in line)[8:-1]
        lines = ["can it fly", "nothing", "Is it made of metal?", "", "Is it big?", keyword.upper()]
        rounds, shown = answers(task, lines + ["Is it alive?"], seed)
        truth = ["yes" if task.world.answer(keyword, q) else "no" for q, _, _ in rounds[:2]]
        assert [answer for _, answer, _ in rounds[:2]] == truth and len(rounds) == 3
        assert rounds[0][0] == "Can it fly?"  # as the model has seen it written
        assert f"Right, in round 3: {keyword}" in shown[-1] and "18" in shown[-1]


def test_the_answerer_lists_questions_and_takes_rounds_back(task):
    rounds, shown = answers(task, ["list", "Can it fly?", "", "undo", "undo", "quit"])
    assert rounds == [] and {f"  {question}" for question in task.world.questions} <= set(shown)
    assert "Taken back: Can it fly?" in shown and "There is no round to take back." in shown


def test_the_answerer_warns_of_a_question_it_never_learned(task):
    _, shown = answers(task, ["Is it striped?", "", "Can it fly?", "", "quit"])
    assert [line for line in shown if "do not trust me" in line] == [
        next(line for line in shown if "sure)" in line)
    ]


def test_the_answerer_goes_by_the_spelling_where_that_decides(task):
    _, shown = answers(task, ["Does it have at least two letters?", "", "quit"])
    assert "yes (by its spelling)" in shown


def test_the_answerer_admits_its_wrong_answers(task):
    class Liar(Chooser):
        def choose(self, conversations, choices):
            return [row[::-1] for row in super().choose(conversations, choices)]

    _, shown = answers(task, ["Can it fly?", "", "quit"], agent=Liar(task, task.world))
    assert any(line.startswith("I was wrong about 'Can it fly?'") for line in shown)


@pytest.mark.parametrize("word", ["help", "hint", "yes"])
def test_a_command_typed_to_the_answerer_costs_no_round(task, word):
    assert answers(task, [word, "quit"])[0] == []


def test_a_hint_to_the_asker_names_the_best_question_and_the_likeliest_keywords(task):
    _, shown = answers(task, ["Is it alive?", "", "hint", "quit"])
    belief = Belief(task.world).after([("Is it alive?", shown[2].split()[0])])
    assert f"  ask: {task.world.questions[belief.questions()[0]]}" in shown
    best = task.world.keywords[belief.guesses()[0]]
    assert any(line.startswith(f"  likely: {best} ") for line in shown)


def test_a_game_with_a_person_can_be_kept_replayed_and_learned_from(task, tmp_path):
    rest = iter(["y", "n", "y", "right"])
    (game,) = terminal.model_asks(
        task, Chooser(task, task.world), lambda: next(rest, None), lambda line: None
    )
    assert game["won"] and game["keyword"] == game["rounds"][-1][2] and len(game["rounds"]) == 3
    path = tmp_path / "games.jsonl"
    path.write_text(json.dumps(game) + "\n")
    again, shown = TwentyQuestions(Options(world=task.options.world, replay=str(path))), []
    assert again.alone == ("play",)
    again.interact(None, None, shown.append, "asker", 0)
    assert shown[0] == f"{game['keyword']}, won" and sum("bits)" in line for line in shown) == 3
    data = TwentyQuestions(Options(world=task.options.world, data=str(path)))
    assert data.examples("valid")[0]["turns"] == [tuple(turn[:2]) for turn in game["rounds"]]


def test_show_game_says_how_it_ended(task):
    shown = []
    terminal.show_game(task.play([{"keyword": "oak"}], Ranked("a", "oak"))[0], shown.append)
    assert len(shown) == 3 and shown[-1] == "Found oak in round 2."
    terminal.show_game(task.play([{"keyword": "oak"}], wandering())[0], shown.append)
    assert shown[-1] == "Not found: oak."


def test_the_answerer_prompt_is_marked_as_such():
    assert answer_prompt("oak", "Is it big?")[0]["content"] == ANSWERER
