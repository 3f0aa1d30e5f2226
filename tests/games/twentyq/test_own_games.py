"""20 Questions: recorded answers, figures, aids at play, and learning from games the model plays itself."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import losses
import objectives
from games.stats import wilson
from games.task import Chat, Episode, Judged, Pair, Players, Reply
from games.twentyq.aids import Informed
from games.twentyq.collect import facts
from games.twentyq.experiments.own_games import CREDIT, reward_turns
from games.twentyq.experiments.preferences import NO_PARTING
from games.twentyq.experiments.thinking import Thinker
from games.twentyq.figures import bits, groups, summarise
from games.twentyq.prompts import ask_prompt, guess_prompt, read_prompt
from games.twentyq.task import Options, TwentyQuestions
from games.twentyq.world import EPS, Belief, TablePlayer, entropy, plain, read_keywords, world_of
from tests.games.twentyq.help_twentyq import write_rows


@pytest.fixture(scope="module")
def task():
    return TwentyQuestions()


# ------------------------------------------------------------------------------------------- recorded answers
@pytest.fixture
def answers(tmp_path):
    dog = {"Is it an animal?": [9, 1], "Can it fly?": [0, 3], "Is it red?": [1, 1]}
    crow = {"Is it an animal?": [1, 0], "Can it fly?": [2, 0]}
    brick = {"Is it an animal?": [0, 1], "Is it red?": [3, 1]}
    rows = [{"keyword": "dog", "answers": dog}, {"keyword": "crow", "answers": crow}]
    rows.append({"keyword": "brick", "answers": brick, "category": "things"})
    return write_rows(tmp_path / "answers.jsonl", rows)


def test_recorded_answers_are_a_world_in_which_some_cells_are_unknown(answers):
    world = world_of(answers)
    assert world.questions[0] == "Is it an animal?"
    place = {question: i for i, question in enumerate(world.questions)}
    assert world.chance[0, place["Is it an animal?"]] == 0.9 and world.chance[2, place["Can it fly?"]] == 0.5
    assert world.answer("Dog", "is it an animal") is True and world.answer("dog", "Can it fly?") is False
    assert world.answer("brick", "Can it fly?") is None and world.answer("cat", "Can it fly?") is None
    assert world.answer("dog", "Is it red?") is None  # once yes, once no
    assert world.kinds["brick"] == "things"


def test_a_question_that_nobody_asked_is_taken_for_the_most_similar_one(answers):
    world = world_of(answers)
    assert world.answer("crow", "Is the secret word something that can fly?") is True
    assert world.answer("brick", "Is the secret word an ANIMAL?") is False
    assert world.answer("crow", "Is it an animal with four legs?") is None  # a quarter of the words


def test_an_unknown_cell_teaches_a_belief_nothing(answers):
    world = world_of(answers)
    belief = Belief(world).after([("Can it fly?", "yes")])
    share = dict(zip(world.keywords, belief.probabilities()))
    assert share["crow"] == pytest.approx((1 - EPS) / (1 - EPS + EPS + 0.5))
    assert share["brick"] == pytest.approx(0.5 / 1.5) and share["dog"] == pytest.approx(EPS / 1.5)


@pytest.mark.parametrize("answers", [None, {"Is it?": [1]}, {"?": [0, 0]}])
def test_a_bad_row_of_answers_is_named(tmp_path, answers):
    row = {"keyword": "dog", "answers": answers}
    with pytest.raises(ValueError, match=r"answers.jsonl.*line 1.*"):
        world_of(write_rows(tmp_path / "answers.jsonl", [row]))


def test_information_is_the_mutual_information_of_keyword_and_answer(task):
    """Summed out: the entropy of the keywords minus the entropy that an answer is expected to leave."""
    belief = Belief(task.world, pool=5).after([("Is it alive?", "yes"), ("Is it a bird?", "no")])
    p, spread = belief.probabilities(), lambda p: float(-(p * np.log2(p)).sum())
    for gain, q in zip(belief.information(), belief.pool):
        left = 0.0
        for likely in (np.exp(belief.log_yes[q]), np.exp(belief.log_no[q])):
            left += (p * likely).sum() * spread(p * likely / (p * likely).sum())
        assert gain == pytest.approx(spread(p) - left, abs=1e-9)
    assert belief.information().max() <= 1 - entropy(EPS) + 1e-12


def test_keyword_files_are_read_in_every_form(tmp_path):
    (tmp_path / "words.txt").write_text("Bike path | cycle path, bikeway\n\ntree\n")
    kaggle = [{"category": "things", "words": [{"keyword": "Bike path", "alts": ["cycle path"]}]}]
    (tmp_path / "kaggle.json").write_text(json.dumps(kaggle))
    rows = [{"keyword": "tree", "difficulty": "Hard", "category": "Plant"}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    path = write_rows(tmp_path / "rows.jsonl", [{"keyword": "tree", "difficulty": "Hard"}])
    assert [e["alternates"] for e in read_keywords(tmp_path / "words.txt")] == [["cycle path", "bikeway"], []]
    assert read_keywords(tmp_path / "kaggle.json") == [
        {"keyword": "Bike path", "alternates": ["cycle path"], "category": "things", "difficulty": ""}
    ]
    assert read_keywords(tmp_path / "rows.json")[0]["category"] == "Plant"
    assert read_keywords(path)[0]["difficulty"] == "Hard"
    (tmp_path / "rows.csv").write_text('keyword,alts\nBike path,"cycle path, bikeway"\n')
    assert read_keywords(tmp_path / "rows.csv")[0]["alternates"] == ["cycle path", "bikeway"]
    with pytest.raises(ValueError, match="keyword"):
        read_keywords(write_rows(tmp_path / "bad.jsonl", [{"keyword": ""}]))


def test_keywords_that_the_table_lacks_are_counted_or_refused(tmp_path, capsys):
    (tmp_path / "words.txt").write_text("Tree\nflux capacitor\n")
    known = TwentyQuestions(Options(keywords=str(tmp_path / "words.txt")))
    assert [example["keyword"] for example in known.examples("test")] == ["tree"]
    assert "1 of 2 count as lost" in capsys.readouterr().out
    # the table finds the tree: 1 of 1 known keywords, 1 of 2 of the list
    report = known.evaluate(known.examples("test"), Players(known.table_player()))
    assert report["metrics"]["known_keywords"] == 0.5
    assert report["metrics"]["win_rate@0"] == 1
    assert report["metrics"]["win_rate_of_list@0"] == 0.5
    assert report["intervals"]["win_rate_of_list@0"] == wilson(1, 2)
    # a tournament has no rate of the list
    TwentyQuestions(Options(keywords=str(tmp_path / "words.txt"), against=["table"])).examples("test")
    assert "1 of 2 are left out" in capsys.readouterr().out
    everyone = TwentyQuestions(Options(keywords=str(tmp_path / "words.txt"), answerer="self"))
    assert len(everyone.examples("test")) == 2
    (tmp_path / "words.txt").write_text("flux capacitor\n")
    with pytest.raises(ValueError, match="--keywords.*--answerer self"):
        known.examples("test")


def test_held_keywords_are_kept_from_training_and_tested():
    task = TwentyQuestions(Options(held=0.1))
    train = {example["keyword"] for example in task.examples("train")}
    test = {example["keyword"] for example in task.examples("test")}
    assert len(test) == 439 and len(train) == 395 and train < test and set(task.trained_on()) == train


# ------------------------------------------------------------------------------------------- figures
def turn(question, answer, guess):
    return {"question": question, "answer": answer, "guess": guess, "repeated": False, "known": True}


def test_bits_are_counted_before_each_answer_and_none_for_a_repeat(task):
    asked = "Is it alive?", "Is it alive?", "Is it blorp?"
    belief = Belief(task.world)
    first = belief.restart().information()[belief.pool.tolist().index(task.world.question_index["isitalive"])]
    assert bits(belief, [(question, "yes") for question in asked]) == [pytest.approx(first), 0.0, None]


def test_figures_of_games_by_hand(task):
    rounds = [("Is it alive?", "yes", "dog"), ("Is it", "no", "dog"), ("Is it?", "no", " ?")]
    won, lost = [turn(*rounds[0])] * 6, [turn(*each) for each in rounds] + [turn(*rounds[0])] * 17
    lost[1]["repeated"] = True
    episodes = [Episode({"keyword": "tree"}, won, reward=15), Episode({"keyword": "tree"}, lost, reward=-1)]
    metrics, intervals = {}, {}
    summarise(episodes, Belief(task.world), "@0", metrics, intervals)
    metrics.pop("bits_a_question@0")
    assert metrics == pytest.approx(
        {
            "win_rate@0": 1 / 2,
            "rounds_to_win@0": 6,
            "kaggle_reward@0": 7,
            "eda_score@0": 0.98 / 2,
            "repeated_questions@0": 1 / 26,
            "unknown_questions@0": 2 / 26,
            "invalid@0": 2 / 26,
        }
    )
    low, high = intervals["win_rate@0"]
    assert low < 0.5 < high


def test_groups_count_games_and_leave_the_nameless_out(task):
    episodes = [
        Episode({"keyword": "x", "category": category}, [], reward=reward)
        for category, reward in (("a", 5), ("a", -1), ("b", 3), ("", 3))
    ]
    found = groups(task, episodes, frozenset())["category"]
    assert {name: (x["n"], x["win_rate"]) for name, x in found.items()} == {"a": (2, 0.5), "b": (1, 1.0)}
    assert found["a"]["interval"][0] < 0.5 < found["a"]["interval"][1]


def test_an_evaluation_reports_groups_and_the_player_as_its_own_answerer():
    small = TwentyQuestions(Options(noise="0", greedy=False, answerer="self"))
    players = Players(small.table_player(), trained_on=frozenset({"tree"}))
    result = small.evaluate([{"keyword": "tree"}, {"keyword": "dog"}], players)
    assert result["groups"]["keywords"]["trained on"]["n"] == 1 and result["metrics"]["win_rate@0"] == 1.0
    assert set(result["groups"]["difficulty"]) <= {"easy", "medium", "hard"} and result["baselines"] == {}
    assert 0 < result["metrics"]["bits_a_question@0"] < 1 - entropy(EPS)


# ------------------------------------------------------------------------------------------- aids
class Says:
    """An agent with the same ideas for each seat, best first."""

    def __init__(self, questions=(), guesses=(), logps=()):
        self.ideas, self.logps, self.heard = {"asker": questions, "guesser": guesses}, logps, []

    def reply(self, conversations, n=1, seconds=0.0):
        self.heard.append((conversations, n, seconds))
        logps = [*self.logps, *[0.0] * 9]
        groups = []
        for talk in conversations:
            ideas = zip(self.ideas[read_prompt(talk)[0]], logps)
            groups.append([Reply(text, logps=[logp]) for text, logp in ideas][:n])
        return groups


def test_a_belief_picks_the_question_that_tells_most_and_never_one_asked_before(task):
    says = Says(["Is it a bird?", "Is it alive?", "Is it blorp?"])
    informed = Informed(says, Belief(task.world), 3, "model")
    first = [reply.text for reply in informed.reply([ask_prompt([])], 3)[0]]
    assert first == ["Is it alive?", "Is it a bird?", "Is it blorp?"]
    assert informed.reply([ask_prompt([("Is it alive?", "yes")])])[0][0].text == "Is it a bird?"
    assert [n for _, n, _ in says.heard] == [3, 3]


def test_guesses_of_the_belief_and_of_both(task):
    turns = [(q, "yes" if task.world.answer("tree", q) else "no") for q in task.world.questions[:40]]
    says = Says(guesses=["dog", "tree"], logps=[-0.1, -2.0])
    best = task.world.keywords[Belief(task.world).after(turns).guesses()[0]]
    for guesses, expected in (("model", "dog"), ("both", "tree"), ("belief", best)):
        informed = Informed(says, Belief(task.world), 2, guesses)
        assert informed.reply([guess_prompt(turns)])[0][0].text == expected


def test_a_thinker_thinks_for_its_seconds_and_then_is_asked_for_the_bare_question():
    says = Says(["Is it alive?"], ["tree"])
    assert Thinker(says, 2.5).reply([ask_prompt([])])[0][0].text == "Is it alive?"
    (first, _, seconds), (then, *_) = says.heard
    assert seconds == 2.5 and first[0][-1]["content"].startswith("Ask the first question.\n")
    assert [message["role"] for message in then[0][-2:]] == ["assistant", "user"]


def test_a_models_own_facts_make_a_world(task, tmp_path):
    class Sure:
        def choose(self, conversations, choices):
            seats = [read_prompt(talk)[1] for talk in conversations]
            return [[0.0, -2.0] if task.world.answer(*seat) else [-2.0, 0.0] for seat in seats]

    rows = [facts(task, Sure(), word) for word in ("tree", "dog")]
    world = world_of(write_rows(tmp_path / "facts.jsonl", rows))
    k = task.world.keyword_index["tree"]
    own = {plain(question): task.world.table[k, q] for q, question in enumerate(task.world.questions)}
    assert [own[plain(question)] for question in world.questions] == world.table[0].tolist()
    assert world.chance.max() == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-3)


# ------------------------------------------------------------------------------------------- lessons
def game(keyword, won, *rounds):
    return {"keyword": keyword, "rounds": [list(turn) for turn in rounds], "won": won}


GAMES = [
    game("tree", True, ("Is it alive?", "yes", "dog"), ("Is it a plant?", "yes", "tree")),
    game("tree", False, ("Is it alive?", "yes", "dog"), ("Is it a bird?", "no", "ant")),
    game("dog", True, ("Is it alive?", "yes", "dog")),
    game("dog", False, ("Is it alive?", "yes", "cat")),
    game("ant", True, ("Is it alive?", "yes", "ant")),
    game("ant", False, ("Is it alive?", "no", "ham")),
]
COMPARISON = {"keyword": "elm", "turns": [["Is it alive?", "yes"]], "asks": "guess"}
COMPARISON |= {"chosen": "elm", "rejected": "cow"}


def lessons(tmp_path, kind, rows):
    task = TwentyQuestions(Options(data=write_rows(tmp_path / "games.jsonl", rows)), kind=kind)
    rng = np.random.default_rng(0)
    examples = task.examples("train") + task.examples("valid")
    return [lesson for example in examples for lesson in task.items(example, rng)], task


def test_won_and_lost_games_make_a_pair_where_they_part_last(tmp_path):
    early = game("tree", True, ("Is it big?", "yes", "tree"))  # parts sooner from the lost one
    alone = game("oak", False, ("Is it big?", "yes", "elm"))  # no game about an oak was won
    pairs, task = lessons(tmp_path, Pair, [early, *GAMES, alone])
    history = [("Is it alive?", "yes")]
    assert sorted((str(pair.messages), pair.chosen, pair.rejected) for pair in pairs) == sorted(
        [
            (str(ask_prompt(history)), "Is it a plant?", "Is it a bird?"),
            (str(guess_prompt(history)), "dog", "cat"),  # the games about ant part at an answer
        ]
    )
    assert task.dropped == {NO_PARTING: 2}


def test_single_episodes_are_judged_by_their_end(tmp_path):
    items, _ = lessons(tmp_path, Judged, GAMES[:2] + [COMPARISON])
    good = {"Is it alive?", "Is it a plant?", "tree", "elm"}
    bad = {"Is it alive?", "Is it a bird?", "ant", "cow"}
    assert sorted((item.good, item.reply) for item in items) == sorted(
        [(True, reply) for reply in good] + [(False, reply) for reply in bad]
    )


def test_imitation_leaves_lost_games_out_and_counts_them(tmp_path):
    nameless = GAMES[0] | {"keyword": ""}  # a game with a person who did not say
    items, task = lessons(tmp_path, Chat, [*GAMES, nameless, COMPARISON])
    said = [item.messages[-1]["content"] for item in items]
    assert "Is it a bird?" not in said and "elm" in said
    assert task.dropped == {"no keyword": 1, "lost games (--lost takes them)": 3}


@pytest.mark.parametrize("item", [Pair, Judged])
def test_games_without_guesses_teach_their_questions(tmp_path, item):
    rows = [row | {"rounds": [turn[:2] for turn in row["rounds"]]} for row in GAMES[:4]]
    items, task = lessons(tmp_path, item, rows)
    assert items and all(isinstance(lesson, item) for lesson in items)
    assert sum(task.dropped.values()) == (item is Pair)  # those about dog part at a guess
    assert "tree" not in str(items)


def test_a_bad_comparison_is_named(tmp_path):
    with pytest.raises(ValueError, match="games.jsonl.*line 1.*asks"):
        lessons(tmp_path, Pair, [COMPARISON | {"asks": "answer"}])


# ------------------------------------------------------------------------------------------- reward
def credited(task, won, *turns):
    episode = Episode({"keyword": "tree"}, list(turns), [Reply("")] * 2 * len(turns), 19 if won else -1)
    return reward_turns(episode, Belief(task.world))


def test_a_reply_is_credited_with_the_win_less_what_it_gave_away(task):
    best = Belief(task.world)
    first = task.world.questions[best.questions()[0]]
    guess = task.world.keywords[best.after([(first, "yes")]).guesses()[0]]
    won = credited(task, True, turn(first, "yes", guess), turn("Is it a plant?", "yes", "tree"))
    lost = credited(task, False, turn("Is it a bird?", "yes", "cow"), turn("Is it a bird?", "yes", "tree"))
    assert won.reward == 1 + 18 / 40 and lost.reward == 0
    assert won.credits[:2] == [pytest.approx(won.reward)] * 2  # nothing could have been better
    gain = best.restart().worth_of(["Is it a bird?"])[0]
    assert lost.credits[0] == pytest.approx(CREDIT * (gain - best.gains().max()))
    repeat = -best.after([("Is it a bird?", "yes")]).gains().max()  # which tells nothing
    assert lost.credits[2] == pytest.approx(CREDIT * repeat)
    assert lost.credits[1] < 0


@pytest.mark.parametrize(
    "question, guess", [("", "dog"), ("Is it alive", "dog"), ("Is it alive?", ""), ("", "")]
)
def test_silence_is_never_better_than_a_wrong_question_or_guess(task, question, guess):
    """A published run learned to say nothing because a timeout cost less than a wrong guess."""
    silent = credited(task, False, turn(question, "no", guess)).credits
    wrong = credited(task, False, turn("Is it blorp?", "no", "blorp")).credits
    assert all(a < b for a, b, text in zip(silent, wrong, (question.endswith("?"), guess)) if not text)


def test_advantages_by_turn_compare_games_that_got_so_far():
    nan = math.nan
    credits = torch.tensor([[1.0, 2.0, nan], [3.0, 2.0, 5.0], [2.0, 5.0, 1.0]])
    found = losses.turn_advantages(credits, scale=False)
    assert found.tolist() == [[-1, -1, 0], [1, -1, 2], [0, 2, -2]]
    scaled = losses.turn_advantages(credits)
    assert torch.allclose(scaled, found / (torch.tensor([-1, -1, 1, -1, 2, 0, 2, -2.0]).std() + 1e-4))
    assert not losses.turn_advantages(torch.ones(2, 3)).any()


def test_games_to_learn_from_have_flips_by_keyword_and_step(task):
    class Seeded(TablePlayer):
        seed = [0, 7]

    player = Seeded(task.world)
    games = task.rollout([{"keyword": word} for word in ("tree", "tree", "dog")], player)
    flips = [[turn["flipped"] for turn in episode.turns] for episode in games]
    n = min(map(len, flips[:2]))
    assert flips[0][:n] == flips[1][:n]
    many = task.rollout(task.examples("train")[:60], player)
    assert 0.02 < np.mean([turn["flipped"] for episode in many for turn in episode.turns]) < 0.3
    player.seed = [0, 8]
    again = task.rollout(task.examples("train")[:60], player)
    assert [e.turns for e in many] != [e.turns for e in again]


# ------------------------------------------------------------------------------------------- own games
def test_an_own_game_teaches_what_would_have_been_right(tmp_path):
    row = game("tree", True, ("Is it alive?", "yes", "dog"), ("Is it a plant?", "no", "tree"))
    row |= {"strategy": "play", "flipped": [False, True]}
    items, task = lessons(tmp_path, Chat, [row])
    taught = {(read_prompt(item.messages[:-1])[0], item.messages[-1]["content"]) for item in items}
    assert taught == {
        ("asker", "Is it alive?"),
        ("asker", "Is it a plant?"),
        ("answerer", "yes"),  # the flipped one is no lesson
        ("guesser", "dog"),
        ("guesser", "tree"),
    }
    assert sum(item.messages[-1]["content"] == "tree" for item in items) == 2


@pytest.mark.parametrize("nll", [0.0, 0.5])
def test_the_likelihood_of_the_chosen_reply_is_weighed_beside_the_preference(monkeypatch, nll):
    logp = torch.tensor([[-1.0, -2.0], [-3.0, -1.0]])
    ref = torch.tensor([[-1.5, -1.5], [-2.0, -2.0]])

    learner = SimpleNamespace(cfg=SimpleNamespace(beta=0.1, nll=nll), model=None)
    monkeypatch.setattr(objectives, "reply_logp", lambda *_: logp.flatten())
    monkeypatch.setattr(objectives, "before_training", lambda *_: ref.flatten())
    found = objectives.dpo_loss(learner, {}, None)[0]
    preference = losses.dpo(logp[:, 0], logp[:, 1], ref[:, 0], ref[:, 1], 0.1).sum()
    assert torch.isclose(found, preference + nll * 4.0)
