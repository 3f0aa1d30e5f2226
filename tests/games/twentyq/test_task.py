"""20 Questions: rules, prompts, a match, play in lock step, evaluation, recorded games."""

import gzip
from collections import Counter

import numpy as np
import pytest

from games.task import Chat, Episode, Pair, Players, Reply
from games.twentyq.figures import answer_accuracy, variety
from games.twentyq.lessons import cells, teacher_game
from games.twentyq.match import Request, lock_step, match
from games.twentyq.prompts import (
    answer_prompt,
    ask_prompt,
    correct,
    guess_prompt,
    read_prompt,
    same,
    yes_or_no,
)
from games.twentyq.task import Options, TwentyQuestions
from games.twentyq.world import POOL, Belief, TablePlayer
from terminal import UsageError
from tests.games.twentyq.help_twentyq import Knowing, Ranked, write_rows


class Recorded(TablePlayer):
    """The table player, and every conversation it was handed."""

    def reply(self, conversations, n=1):
        self.heard = getattr(self, "heard", []) + list(conversations)
        return super().reply(conversations, n)


def wandering():
    """An agent with 30 ideas, none of them right."""
    return Ranked(*(f"idea {i}" for i in range(30)))


def outcome(episodes):
    return [(episode.example, episode.turns, episode.reward) for episode in episodes]


def text_of(conversation):
    return "\n".join(message["content"] for message in conversation)


# ------------------------------------------------------------------------------------------------ rules
SAME = """\
theater = ater, mother = mor, the Moon = moon, ice cream = icecream, Ice-Cream! = ice cream, box = boxes,
rock 'n' roll = rocknroll, The Mother-in-law's Theater = morinlawsater, cat = cats, bus = buses,
glass = glas, mothers = mors, mothers = mor, bike path = bike paths"""
DIFFERENT = """\
bikes path = bike path, café = cafe, ox = oxes, as = a, cat = catss, cat = bat, party = parties,
city’s = citys, boxeses = box"""


@pytest.mark.parametrize("text, equal", [(SAME, True), (DIFFERENT, False)])
def test_which_guesses_are_the_same(text, equal):
    for pair in text.replace("\n", " ").split(", "):
        a, b = pair.split(" = ")
        assert same(a, b) == same(b, a) == equal, pair
    assert correct("Apples", "pear", "apple") and not correct("apple", "pear", "plum")


@pytest.mark.parametrize(
    "text, meaning",
    [("yes", "yes"), ("YES!", "yes"), ("no", "no"), ("not yes", "yes"), ("eyes", "yes")]
    + [("I do not know", "no"), ("maybe", None), ("", None)],
)
def test_yes_or_no(text, meaning):
    assert yes_or_no(text) == meaning


def test_what_is_said_is_cut_to_its_limit_and_counts_as_it_then_stands(task):
    answerer = Ranked("no")
    for repeats, repeated in ((True, [False, True, True]), (False, [False, False, True])):
        player = Ranked("I think\n\n" + "x" * 2000 + " \n", "y")
        (episode,) = task.play([{"keyword": "eagle"}], player, answerer, repeats=repeats)
        assert [turn["repeated"] for turn in episode.turns[:3]] == repeated
        assert (episode.turns[0]["question"], episode.turns[0]["guess"]) == ("x" * 750, "x" * 100)
    assert {read_prompt(heard)[1][1] for heard in answerer.heard} == {"x" * 750, "y"}
    task.world.alternates["eagle"] = ["y" * 100]
    assert task.play([{"keyword": "eagle"}], Ranked("y" * 100 + "z"))[0].reward == 20


# ------------------------------------------------------------------------------------------------ prompts
def test_play_hands_agents_the_prompts_of_training(world_file):
    task = TwentyQuestions(
        Options(str(world_file), cells=12, shuffle=0.0, flips=0.0, explore=0.0, unsure=0.0)
    )
    for example in task.examples("test"):
        chats = task.items(example, np.random.default_rng(0))
        trained = [chat.messages[:-1] for chat in chats]
        assert all(chat.learn == "last" and chat.messages[-1]["role"] == "assistant" for chat in chats)
        asker, answerer = Recorded(task.world), Recorded(task.world)
        asker.belief = Belief(task.world, POOL)
        episode = task.play([example], asker, answerer)[0]
        assert len(asker.heard) >= 2 * len(episode.turns) and len(answerer.heard) == len(episode.turns)
        assert all(heard in trained for heard in asker.heard + answerer.heard)
        assert not any(example["keyword"] in text_of(heard) for heard in asker.heard)


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


@pytest.mark.parametrize(
    "turns", [[], [("Is it big?", "yes")], [("Is it big?", "no"), ("What is the keyword?", "yes")]]
)
def test_read_prompt_inverts_the_prompts(turns):
    assert read_prompt(ask_prompt(turns)) == ("asker", turns)
    assert not turns or read_prompt(guess_prompt(turns)) == ("guesser", turns)
    assert read_prompt(answer_prompt("oak", "Is it cold?")) == ("answerer", ("oak", "Is it cold?"))


# ------------------------------------------------------------------------------------------------ a match
def test_a_match_asks_answers_and_guesses_until_the_guess_is_right():
    episode = Episode({"keyword": "eagle"}, [])
    game = match(episode, ["eagle", "bird"], [True, False])
    turns = [("Can it fly?", "no"), ("Is it alive?", "yes")]
    expected = [
        (Request("asker", ask_prompt([]), []), "Can it fly?"),
        (Request("answerer", answer_prompt("eagle", "Can it fly?")), "yes"),  # which is flipped
        (Request("guesser", guess_prompt(turns[:1]), []), "cow"),
        (Request("asker", ask_prompt(turns[:1]), ["Can it fly?"]), "Is it alive?"),
        (Request("answerer", answer_prompt("eagle", "Is it alive?")), "Yes, it is."),
        (Request("guesser", guess_prompt(turns), ["cow"]), "Birds"),
    ]
    request = next(game)
    for wanted, reply in expected[:-1]:
        assert request == wanted
        request = game.send((Reply(reply), False))
    assert request == expected[-1][0]
    with pytest.raises(StopIteration) as end:
        game.send((Reply("Birds"), False))
    assert end.value.value is True and episode.reward == 19
    assert [reply.text for reply in episode.replies] == ["Can it fly?", "cow", "Is it alive?", "Birds"]
    assert [turn["flipped"] for turn in episode.turns] == [True, False]


def test_games_in_lock_step_end_together_where_they_are_about_one_thing():
    def count(number, wins):
        while number:
            yield number
            number -= 1
        return wins

    calls = []

    def speak(waiting):
        calls.append(dict(waiting))
        return list(waiting.values())

    games = [count(2, True), count(5, False), count(1, False), count(3, False)]
    assert list(lock_step(games, speak, together=2)) == [(2, False), (0, True), (3, False)]
    assert calls == [{0: 2, 1: 5, 2: 1, 3: 3}, {0: 1, 1: 4, 3: 2}, {3: 1}]


# ------------------------------------------------------------------------------------------------ play
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


@pytest.mark.parametrize(
    "ideas, repeats, said, new",
    [
        (LETTERS, False, LETTERS[:20], 20),  # a repeat is replaced by the next best
        (["a", "b", "A!"], False, ["a", "b", *["a"] * 18], 2),  # out of ideas
        (LETTERS, True, ["a"] * 20, 1),  # repeats are kept
    ],
)
def test_what_was_said_before_is_replaced_by_the_next_best_or_counted(task, ideas, repeats, said, new):
    turns = task.play([{"keyword": "eagle"}], Ranked(*ideas), Ranked("perhaps"), repeats=repeats)[0].turns
    assert [turn["question"] for turn in turns] == [turn["guess"] for turn in turns] == said
    assert [turn["repeated"] for turn in turns] == [False] * new + [True] * (20 - new)
    assert {turn["answer"] for turn in turns} == {"no"}  # an answer that is neither


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


def test_answers_flip_at_the_stated_rate_by_the_seed_and_not_alike_in_all_games(task, world_file):
    flipped = flips(task, 400, 0.1)
    assert abs(flipped.mean() - 0.1) < 0.015  # four and a half standard errors
    assert flips(task, 20, 0.0).sum() == 0
    assert (flips(task, 10, 0.1) == flipped[:10]).all() and len({tuple(row) for row in flipped}) > 100
    other = TwentyQuestions(Options(world=str(world_file)), seed=1)
    assert (flips(other, 10, 0.1) != flipped[:10]).any()


def test_lessons_of_a_shuffled_game_are_what_the_belief_says_after_its_turns_in_any_order():
    task = TwentyQuestions(Options(shuffle=1.0, cells=0, flips=0.3))
    firsts, taught = set(), 0
    for seed in range(20):
        replies = {}
        for chat in task.items({"keyword": "dog"}, np.random.default_rng(seed)):
            replies.setdefault(str(chat.messages[:-1]), (chat.messages, []))[1].append(
                chat.messages[-1]["content"]
            )
        for messages, said in replies.values():
            seat, turns = read_prompt(messages[:-1])
            belief = task.teacher.after(turns)
            if seat == "asker":
                assert said == [task.world.questions[belief.questions()[0]]]
            else:
                assert task.world.keywords[belief.guesses()[0]] in said and len(said) <= 2
                taught += len(said)
                firsts.add(turns[0][0])
    assert len(firsts) > 8 and taught > 100


def test_shuffle_is_the_share_of_games_whose_first_question_may_be_any():
    def starts_with_the_best(share, seed):
        task = TwentyQuestions(Options(shuffle=share, cells=0, explore=0.0))
        best = task.world.questions[task.teacher.restart().questions()[0]]
        chats = task.items({"keyword": "dog"}, np.random.default_rng(seed))
        turns = max((read_prompt(chat.messages[:-1])[1] for chat in chats), key=len)
        return turns[0][0] == best

    assert all(starts_with_the_best(0.0, seed) for seed in range(10))
    assert 1 <= sum(starts_with_the_best(0.5, seed) for seed in range(10)) < 10


@pytest.mark.parametrize("n, yes, no", [(0, 0, 0), (1, 1, 0), (6, 3, 3), (400, 0, 0)])
def test_half_of_the_cells_taught_have_the_answer_yes(n, yes, no):
    task = TwentyQuestions(Options())
    k = task.world.keyword_index["dog"]
    if n == 400:  # more than there are: all
        yes, no = int(task.world.table[k].sum()), int((~task.world.table[k]).sum())
    chats = cells(task.world, "Dog", n, np.random.default_rng(0))
    assert Counter(chat.messages[-1]["content"] for chat in chats) == +Counter(yes=yes, no=no)
    asked = [read_prompt(chat.messages[:-1])[1] for chat in chats]
    assert len(set(asked)) == len(asked) and {keyword for keyword, _ in asked} <= {"Dog"}
    for chat in chats:
        right = task.world.answer(*read_prompt(chat.messages[:-1])[1])
        assert chat.messages[-1]["content"] == ("yes" if right else "no")


@pytest.mark.parametrize("options", [{}, {"explore": 1.0, "flips": 0.5}])
def test_a_world_with_fewer_questions_than_rounds_can_be_trained_on(world_file, options):
    task = TwentyQuestions(Options(world=str(world_file), cells=2, **options))
    for seed in range(5):
        for example in task.examples("train"):
            assert task.items(example, np.random.default_rng(seed))


# ------------------------------------------------------------------------------------------ evaluation
def test_evaluation_of_the_table_player_equals_its_own_baseline(task):
    result = task.evaluate(task.examples("test"), Players(task.table_player()))
    assert result["n"] == 8 and len(result["records"]) == 16
    for name, value in result["baselines"].items():
        assert result["metrics"][name] == value
    low, high = result["intervals"]["win_rate@0"]
    assert result["metrics"]["win_rate@0"] == 1 and low == pytest.approx(8 / (8 + 1.96**2)) and high <= 1


def test_variety_counts_the_questions_that_two_games_share():
    ask = lambda *questions: Episode({}, [{"question": question} for question in questions])
    games = [ask("Is it a?", "is it A", "Is it b?"), ask("Is it a?", "Is it b?"), ask("Is it b?", "Is it c?")]
    assert variety(games) == {"different_questions": 3, "shared_questions": pytest.approx((2 + 1 + 1) / 3)}
    assert variety(games[:1]) == {"different_questions": 2}


def test_variety_is_of_games_that_go_on_to_their_last_round(task):
    result = task.evaluate(task.examples("test"), Players(wandering()))
    assert result["metrics"]["different_questions"] == result["metrics"]["shared_questions"] == 20
    episodes = task.play(task.examples("test"), task.table_player(), full=True)
    assert {len(episode.turns) for episode in episodes} == {20} and {e.reward for e in episodes} == {-1}


def test_answer_accuracy_is_one_for_the_table_and_half_for_one_word(task):
    truthful, intervals = answer_accuracy(task.world, Knowing(task.world), 100, 0)
    assert truthful == dict(answerer_true=1.0, answerer_false=1.0, answerer_balanced=1.0)
    stubborn = Ranked()
    stubborn.choose = lambda conversations, choices: [[0.0, -1.0] for _ in conversations]
    metrics, intervals = answer_accuracy(task.world, stubborn, 100, 0)
    assert metrics["answerer_balanced"] == 0.5 and intervals["answerer_balanced"] == (0.5, 0.5)
    assert intervals["answerer_true"][1] == 1.0 and intervals["answerer_false"][0] == 0.0
    half = Ranked()
    half.choose = lambda conversations, choices: [[0.0, -1.0], [-1.0, 0.0]] * (len(conversations) // 2)
    metrics, intervals = answer_accuracy(task.world, half, 16, 0)
    low, high = intervals["answerer_balanced"]
    assert metrics["answerer_balanced"] == 0.5 and high - low == pytest.approx(2 * 1.96 * (0.25 / 16) ** 0.5)


def test_keywords_that_a_model_was_not_trained_on_are_tested_first(task):
    words = [example["keyword"] for example in task.examples("test")]
    order = [example["keyword"] for example in task.tests_for(0, {words[0].upper(), words[3]})]
    assert order == [*words[1:3], *words[4:], words[0], words[3]]
    assert task.tests_for(2, {words[0]}) == [{"keyword": word} for word in words[1:3]]


def test_the_noise_is_shares_and_says_whether_games_vary():
    for noise, varied in (("0", False), ("0,0.1", True)):
        evaluation = TwentyQuestions(Options(noise=noise)).evaluation
        assert (evaluation.varied, evaluation.max_new) == (varied, 24)
    for noise in ("0,1.5", "nan", "-1", "0;1"):
        with pytest.raises(UsageError, match=f"--noise {noise}: "):
            TwentyQuestions(Options(noise=noise))
    assert TwentyQuestions(Options(teacher="table")).evaluation.max_new == 512


# ------------------------------------------------------------------------------------------ recorded games
def recorded(world_file, folder, rows, name="games.jsonl"):
    path = folder / name
    write_rows(path, rows)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    return TwentyQuestions(Options(world=str(world_file), data=str(path)))


GAME = {"keyword": "eagle", "rounds": [["Is it alive?", "yes"], ["Can it swim?", " No."]]}


@pytest.mark.parametrize("name", ["games.jsonl", "games.jsonl.gz"])
def test_a_recorded_game_gives_one_chat_a_phase_and_round(world_file, tmp_path, name):
    task = recorded(world_file, tmp_path, [GAME], name)
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
        (GAME | {"rounds": [["Is it alive?", "yes", 5]]}, "rounds is .*expected a list"),
        (GAME | {"rounds": [["Is it alive?", "yes", "oak"], ["Is it food?", "yes"]]}, "all rounds must have"),
        (GAME | {"flipped": [True]}, "'flipped' must be a list"),
    ],
)
def test_a_malformed_game_is_an_error_that_names_file_and_line(world_file, tmp_path, row, what):
    with pytest.raises(ValueError, match=what) as error:
        recorded(world_file, tmp_path, [GAME, "", row])
    assert str(tmp_path / "games.jsonl") in str(error.value) and "line 3" in str(error.value)


def test_games_that_break_the_rules_are_dropped_and_counted(world_file, tmp_path):
    bad = {"keyword": "oak", "rounds": [["Is it alive?", "maybe"]]}
    long = {"keyword": "oak", "rounds": [["Is it alive?", "yes"]] * 21}
    full = {"keyword": "oak", "rounds": [["Is it alive?", "yes"]] * 20}
    task = recorded(world_file, tmp_path, [GAME, bad, bad, long, full])
    assert [game["keyword"] for game in task.games] == ["eagle", "oak"]
    assert task.dropped == {"an answer other than yes, no and unsure": 2, "more than 20 rounds": 1}


def test_the_valid_split_shares_no_keyword_with_train(world_file, tmp_path):
    rows = [{"keyword": f"thing {i % 45}", "rounds": GAME["rounds"]} for i in range(90)]
    task = recorded(world_file, tmp_path, rows)
    train, valid = ([game["keyword"] for game in task.examples(split)] for split in ("train", "valid"))
    assert len(train) + len(valid) == 90 and valid
    assert not set(train) & set(valid)
    assert {example["keyword"] for example in task.examples("test")} == set(task.world.keywords)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="holds no rows"):  # not replaced by the world
        recorded(world_file, tmp_path / "none", []).examples("train")


def test_a_mixed_training_has_the_recorded_games_and_fresh_ones_about_other_keywords(world_file, tmp_path):
    rows = [{"keyword": f"thing {i}", "rounds": GAME["rounds"]} for i in range(30)]
    path = write_rows(tmp_path / "games.jsonl", [*rows, GAME])
    options = Options(world=str(world_file), data=path, mix=True)
    task = TwentyQuestions(options)
    train, valid = task.examples("train"), task.examples("valid")
    fresh = [example["keyword"] for example in train if "turns" not in example]
    held = {game["keyword"] for game in valid}
    assert held and all("turns" in game for game in valid)
    assert set(fresh) == set(task.world.keywords) - held
    assert len(train) + len(valid) == 31 + len(fresh)
    for example in (train[0], train[-1]):
        assert task.items(example, np.random.default_rng(0))
    for wrong, kind in ((Options(mix=True), Chat), (options, Pair)):
        with pytest.raises(UsageError, match="--mix: needs --data and --loss sft"):
            TwentyQuestions(wrong, kind=kind)


def test_the_teacher_asks_only_the_questions_of_its_pool():
    task = TwentyQuestions(Options(pool=3, explore=0.5))
    asked = set()
    for keyword in task.world.keywords[:20]:
        asked.update(question for question, _ in teacher_game(task, keyword, np.random.default_rng(0)))
    assert asked == set(task.world.separating(3))
