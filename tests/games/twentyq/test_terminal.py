"""20 Questions with a person in the terminal: whatever is typed, a game goes on or ends, and can be kept."""

import json
import math

import pytest

from games.task import Players, Reply
from games.twentyq import terminal
from games.twentyq.aids import Informed
from games.twentyq.task import Options, TwentyQuestions
from games.twentyq.world import Belief, TablePlayer, plain
from tests.games.twentyq.help_twentyq import Knowing


@pytest.fixture
def play(task, capsys):
    """play(seat, lines, agent, seed) -> (the game as a row or None, what was shown). `show` takes no colours,
    so infer.py escapes all that it is given; nothing is printed past it."""

    def make(seat, lines, agent=None, seed=0):
        shown, rest = [], iter(lines)

        def show(line):
            shown.append(line)

        agent = agent or Knowing(task.world)
        games = task.interact(Players(agent), lambda: next(rest, None), show, seat, seed)
        assert len(games) <= 1 and capsys.readouterr() == ("", "")
        return (games[0] if games else None), shown

    return make


def rounds_of(game):
    return game["rounds"] if game else []


def questions_in(shown):
    return [line.partition(": ")[2] for line in shown if line.startswith("\nRound")]


@pytest.mark.parametrize(
    "line, meaning",
    [("Y", "yes"), (" Yes! ", "yes"), ("nope", "no"), ("I don't know", "unsure"), ("That's it", "right")]
    + [("Q", "quit"), ("top", "top"), ("UNDO", "undo"), ("xyzzy", ""), ("", ""), ("yes and no", "")]
    + [(None, "quit")],
)
def test_the_meaning_of_a_line(line, meaning):
    assert terminal.meaning_of(line) == meaning


# ------------------------------------------------------------------------------------------ the model asks
def test_nonsense_is_explained_and_undo_takes_the_last_answer_and_guess_back(play):
    game, shown = play("asker", ["undo", "xyzzy", "", "\x1b[31m", "y", "n", "undo", "quit"])
    assert [turn[:2] for turn in game["rounds"]] == [["Is it alive?", "yes"]]
    asked = questions_in(shown)
    assert asked[0] == asked[1] and asked[2] == asked[4] != asked[3] and len(asked) == 5
    assert sum("undo" in line for line in shown) >= 4


@pytest.mark.parametrize(
    "lines, n, won",
    [
        (["right", "y", "n", "right", "y", "y"], 2, True),  # the first is before any guess
        (["y"] * 20 + ["top", "undo", "u", "y"], 20, True),  # top, undo and u are no answer
        (["y"] * 20 + ["right"], 20, True),
        (["y"] * 20 + ["n", "oak tree"], 20, False),
    ],
)
def test_the_last_guess_may_be_right(play, lines, n, won):
    game, _ = play("asker", lines)
    assert len(game["rounds"]) == n and game["won"] == won
    assert game["keyword"] == (game["rounds"][-1][2] if won else "oak tree")


def test_an_unsure_answer_teaches_nothing_and_nothing_is_asked_or_guessed_twice(play):
    game, shown = play("asker", ["u", "idk", "y", "n", "maybe", "y"])
    asked, answers, guesses = zip(*game["rounds"])
    assert len(set(asked)) == len(set(guesses)) == 6
    assert answers == ("unsure", "unsure", "yes", "no", "unsure", "yes")


def test_top_shows_the_best_guesses_without_costing_a_round(play):
    game, shown = play("asker", ["top", "y", "top", "quit"])
    listed = {line.split()[-1] for line in shown if line.startswith("  ")}
    assert len(game["rounds"]) == 1 and listed == {"eagle", "mouse", "elephant", "oak", "apple"}


def test_top_shows_chances_where_they_are_a_models(play, task):
    class Model(TablePlayer):
        def reply(self, conversations, n=1):
            groups = super().reply(conversations, n)
            return [[Reply(reply.text, logps=[math.log(0.25)]) for reply in group] for group in groups]

    for guesses, chances in (("model", 5), ("belief", 0)):
        agent = Informed(Model(task.world), Belief(task.world), 0, guesses)
        _, shown = play("asker", ["y", "top", "quit"], agent)
        listed = [line for line in shown if line.startswith("  ")]
        assert len(listed) == 5 and sum("25.0%" in line for line in listed) == chances
        assert not any("100" in line for line in listed)


@pytest.mark.parametrize("aids", [{}, {"guesses": "belief"}])
def test_a_lost_game_tells_where_the_answers_were_wrong(play, task, aids):
    vars(task.options).update(aids)
    _, shown = play("asker", ["y"] * 20 + ["n", "oak tree"])
    wrong = {question for question in questions_in(shown) if task.world.answer("oak", question) is False}
    assert wrong and {line.split("'")[1] for line in shown if "the facts say no" in line} == wrong
    game, shown = play("asker", ["y"] * 20 + ["n", "a zebra"])
    assert game["keyword"] == "a zebra" and shown[-1] == "I give up. What was it?"


def test_the_end_of_input_ends_a_game_anywhere(play):
    script = ["xyzzy", "u", "top", "undo"] + ["y"] * 20 + ["n", "zebra"]
    for n in range(len(script) + 1):
        game, shown = play("asker", script[:n])
        assert len(rounds_of(game)) == (min(20, n - 4) if n >= 4 else n // 2) and shown


# ------------------------------------------------------------------------------------------ the model answers
def test_the_answerer_names_its_keyword_at_the_end_of_input(play, task):
    script = ["undo", "??", "Can it fly?", "nothing", "Is it alive?", ""]
    for n in range(len(script) + 1):
        game, shown = play("answerer", script[:n])
        assert any(word in line for line in shown[1:] for word in task.world.keywords)
        assert len(rounds_of(game)) == max(0, min(2, (n - 2) // 2))


@pytest.mark.parametrize("seed", range(5))
def test_the_answerer_answers_by_its_keyword_and_a_right_guess_ends_the_game(play, task, seed):
    keyword = play("answerer", ["is it alive", ""], seed=seed)[0]["keyword"]
    lines = ["can it fly", "nothing", "Is it made of metal?", "", "Is it big?", keyword.upper()]
    game, shown = play("answerer", lines + ["Is it alive?"], seed=seed)
    truth = ["yes" if task.world.answer(keyword, question) else "no" for question, *_ in game["rounds"][:2]]
    assert [answer for _, answer, _ in game["rounds"][:2]] == truth and len(game["rounds"]) == 3
    assert game["rounds"][0][0] == "Can it fly?"  # as the model has seen it written
    assert game["won"] and game["keyword"] == keyword and "18" in shown[-1]


def test_the_answerer_takes_rounds_back_and_a_command_costs_none(play):
    lines = ["Can it fly?", "", "help", "Is it alive?", "", *["undo"] * 3, "hint", "yes", "top", "quit"]
    assert play("answerer", lines)[0] is None


def test_the_answerer_says_how_far_to_trust_it(play, task):
    _, shown = play("answerer", ["Is it striped?", "", "Does it have at least two letters?", ""])
    assert "never learned" in shown[2] and "by its spelling" in shown[5]

    class Liar(Knowing):
        def choose(self, conversations, choices):
            return [row[::-1] for row in super().choose(conversations, choices)]

    for agent, wrong in ((Knowing, 0), (Liar, 1)):
        _, shown = play("answerer", ["Can it fly?", "", "quit"], agent(task.world))
        assert sum("'Can it fly?'" in line for line in shown) == wrong


def test_a_hint_to_the_asker_names_the_best_question_and_the_likeliest_keyword(play, task):
    game, shown = play("answerer", ["Is it alive?", "", "hint", "quit"])
    belief = Belief(task.world).after([game["rounds"][0][:2]])
    assert any(task.world.questions[belief.questions()[0]] in line for line in shown)
    assert any(task.world.keywords[belief.guesses()[0]] in line for line in shown)


# ------------------------------------------------------------------------------------------ kept games
def test_a_game_with_a_person_can_be_kept_replayed_and_learned_from(play, task, tmp_path):
    game, _ = play("asker", ["y", "n", "y", "right"])
    path = tmp_path / "games.jsonl"
    path.write_text(2 * (json.dumps(game) + "\n"))
    again = TwentyQuestions(Options(world=task.options.world, replay=str(path)))
    assert not again.needs_model()
    for read, games in ((None, 2), (lambda: "", 2), (lambda: "quit", 1)):
        shown = []
        again.interact(Players(), read, shown.append, "asker", 0)
        assert sum("bits)" in line for line in shown) == 3 * games and game["keyword"] in shown[0]
    data = TwentyQuestions(Options(world=task.options.world, data=str(path)))
    assert data.examples("valid")[0]["turns"] == [tuple(turn[:2]) for turn in game["rounds"]]


@pytest.mark.parametrize("row", ['{"keyword": "oak"}', '{"keyword": "oak", "rounds": [["Is it big?"]]}'])
def test_a_row_that_is_no_game_is_named(task, tmp_path, row):
    path = tmp_path / "games.jsonl"
    path.write_text(row)
    again = TwentyQuestions(Options(world=task.options.world, replay=str(path)))
    with pytest.raises(ValueError, match=r"games.jsonl, line 1"):
        again.interact(Players(), None, print, "asker", 0)


def test_a_scripted_game_is_shown_with_its_end(task):
    shown = []
    (game,) = task.interact(Players(task.table_player()), None, shown.append, "asker", 0)
    assert len(shown) == len(game["rounds"]) + 1 and game["won"]
    assert game["keyword"] in shown[-1] and plain(game["rounds"][0][0]) in plain(shown[0])
