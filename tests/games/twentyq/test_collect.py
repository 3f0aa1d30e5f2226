"""Collecting games of 20 Questions: from a stub of an endpoint, from the table and from a run; what is kept
of them, what is not, what is paid, and what training makes of it."""

import functools
import json
import re
from collections import Counter

import pytest
from conftest import tiny_model

import agents
import infer
import model as models
from agents import Teacher
from games.task import Players, Reply
from games.twentyq import collect as teacher
from games.twentyq import match, recorded
from games.twentyq.lessons import imitate
from games.twentyq.prompts import names, read_prompt
from games.twentyq.task import Options, TwentyQuestions
from games.twentyq.world import TablePlayer, plain, world_of
from tests.endpoint import Endpoint, Waits
from tests.games.twentyq.help_twentyq import read_rows, write_rows


class Player(Endpoint):
    """An endpoint that plays properly: it reads the long prompts and answers from the table. `guess` and
    `told(keyword)` replace its guesses, and its questions once it is told the keyword."""

    def __init__(self, task, *script, guess=None, told=None, drift=False):
        self.task, self.guess, self.told, self.drift = task, guess, told, drift
        self.table, self.said, self.counts = TablePlayer(task.world), [], Counter()
        super().__init__(*script)

    def talk(self, messages):
        with self.lock:
            text = self.text(messages[0]["content"], messages[1]["content"])
            self.said.append((messages, text))
            return text

    def reply(self, conversations, n=1):
        """The same without a connection, as an agent."""
        return [[Reply(self.talk(conversation))] for conversation in conversations]

    def text(self, system, user):
        turns = re.findall(r"^Question: (.+?\?) Answer: (yes|no|unsure)", user, re.M)
        if system == teacher.WRITER:
            keyword = user.split("\n")[0].removeprefix("Keyword: ")
            questions = self.task.world.questions
            return "Here it is.\n" + "\n".join(
                f"Question: {q} Answer: {'Yes' if self.task.world.answer(keyword, q) else 'no'}"
                for q in questions
            )
        if system == teacher.ANSWERER:
            keyword, question = re.search(r"Keyword: (.+)\nQuestion: (.+)", user).groups()
            answer = "YES" if self.task.world.answer(keyword, question) else "NO"
            return f"Let me think, yes or no?\n**{answer}**"
        belief = self.table.belief.after(turns)
        if "Guess the keyword." in user:
            guess = self.guess or self.task.world.keywords[belief.guesses()[0]]
            return f"It could be many things.\nI will guess: {guess}."
        # drift: an endpoint that says something else each time it is asked the same
        self.counts[user] += self.drift
        best = [self.task.world.questions[q] for q in belief.questions(6)]
        best = best[self.counts[user] % 6 :] + best[: self.counts[user] % 6]
        if teacher.LIST in user:
            return "\n".join(f"{i}. {question}" for i, question in enumerate(best, 1))
        hinted = re.search("the keyword is (.+?)\\.", user)
        question = self.told(hinted[1]) if self.told and hinted else best[0]
        return f"A good choice halves what is left.\nGiven this reasoning, I would ask: {question}"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    waits = Waits()
    monkeypatch.setattr(agents, "Event", waits)
    return waits


@pytest.fixture
def collect(world_file, tmp_path):
    """collect(endpoint or name, strategy, *flags) gives the exit code; rows() what was written."""

    def call(who, strategy, *flags):
        name = getattr(who, "url", who)
        model = ["--teacher-model", "big"] if hasattr(who, "url") else []
        argv = ["collect", "--task", "20q", "--world", str(world_file), "--teacher", name, *model]
        return infer.main([*argv, "--strategy", strategy, "--out", str(tmp_path / "games.jsonl"), *flags])

    call.path = tmp_path / "games.jsonl"
    call.rows = lambda: read_rows(call.path)
    return call


@pytest.fixture(scope="module")
def run(world_file, tokenizer, tmp_path_factory):
    """The folder of a run whose model is random."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    models.save(tiny_model(vocab_size=tokenizer.size), folder / "model")
    tokenizer.save(folder / "model")
    values = {"task": "20q", "loss": "sft", "world": str(world_file)}
    (folder / "run.json").write_text(json.dumps({"values": values}))
    return folder


def asked(end, system):
    return [messages[1]["content"] for messages, _ in end.said if messages[0]["content"] == system]


def chats(task, row):
    """(seat, content, reply) of each sample that training makes of a stored game."""
    game = recorded.read(task, "a row", row)
    samples = imitate(game) if game else []
    return [(*read_prompt(chat.messages[:-1]), chat.messages[-1]["content"]) for chat in samples]


# ------------------------------------------------------------------------------------------------ replies
@pytest.mark.parametrize(
    "text, question",
    [
        ("It helps.\nGiven this reasoning, is it alive?", "Is it alive?"),
        ("I would ask the following question: Is it alive?", "Is it alive?"),
        ('**Question:** "Is it alive?" (yes or no)\n\n', "Is it alive?"),
        ("3. Is it alive?", "Is it alive?"),
        ('Does its name start with "B"?', 'Does its name start with "B"?'),
        ("In the dark: is it big?", "In the dark: is it big?"),
        ("Is it alive?\nThat is my question.", ""),
        ("As the secret message says, is it alive?", ""),
    ]
    + [(text, "") for text in ("It is alive.", "?", "x" * 800 + "?", "")],
)
def test_the_question_in_a_reply(text, question):
    assert teacher.read_question(text) == question


@pytest.mark.parametrize(
    "text, guess",
    [("Dog", "dog"), ("It barks.\nI will guess: Dog.", "dog"), ("Is it a dog (an animal)?", "dog")]
    + [("Given this reasoning, I will guess a dog", "dog"), ("Based on the answers so far, dog", "dog")]
    + [('My guess is that it\'s "hot dog"', "hot dog"), ("**Keyword:** T-shirt", "t-shirt")]
    + [("Island", "island"), ("Antenna", "antenna"), ("(none)", ""), ("x" * 120, ""), ("", "")],
)
def test_the_guess_in_a_reply(text, guess):
    assert teacher.read_guess(text) == guess


@pytest.mark.parametrize(
    "text, answer",
    [("YES", "yes"), ("Not at all.\n**NO**.", "no"), ("Answer: yes", "yes"), ("yes\nmaybe", "unsure")]
    + [("yes and no", "unsure"), ("I know nothing", "unsure"), ("", "unsure")],
)
def test_the_answer_in_a_reply(text, answer):
    assert teacher.read_answer(text) == answer


@pytest.mark.parametrize(
    "text, word, there",
    [("Is it a dog?", "dog", True), ("Are dogs bigger?", "dog", True), ("Is it a hot-dog?", "dog", True)]
    + [("Is it a dogma?", "dog", False), ("Is it an Ice-Cream cone?", "ice cream", True), ("", "dog", False)]
    + [("Is it icecream?", "ice cream", True), ("Is it ice cream?", "icecream", True)]
    + [("Is it ice?", "ice cream", False), ("Is it a box?", "boxes", True), ("the dog's", "dogs", True)]
    + [("Is it 'rock ’n’ roll'?", "rock 'n' roll", True)],
)
def test_a_text_that_names_the_keyword(text, word, there):
    assert names(text, ("zebra", word)) is there


# ------------------------------------------------------------------------------------------- the strategies
def test_simulate_plays_with_candidates_and_reasons_and_stores_neither(task, collect, capsys):
    with Player(task) as end:
        assert collect(end, "simulate") == 0
    rows = collect.rows()
    assert {row["keyword"] for row in rows} == set(task.world.keywords)
    for row in rows:
        assert row["won"] and row["rounds"][-1][2] == row["keyword"] and not row["cut"]
        assert row["strategy"] == "simulate" and row["teacher"] == "big"
        for question, answer, guess in row["rounds"]:
            assert (answer == "yes") == task.world.answer(row["keyword"], question)
            assert plain(question) in task.world.question_index and guess in task.world.keywords
    rounds = sum(len(row["rounds"]) for row in rows)
    assert len(end.said) == 4 * rounds and len(asked(end, teacher.ANSWERER)) == rounds
    stored = collect.path.read_text()
    assert not any(word in stored for word in ("halves", "think", "many things", "Candidates", "**"))
    shown = capsys.readouterr().out
    assert f"games: {len(rows)}, {len(rows)} won" in shown and "dropped in collecting: none" in shown
    assert f"samples: {rounds} ask, {rounds} answer, {rounds} guess" in shown
    assert f"tokens: {len(end.said) * 3:,} of prompts, {len(end.said) * 2:,} of replies\n" in shown
    assert list(collect.path.parent.iterdir()) == [collect.path]


def test_past_guesses_are_for_who_answers_or_guesses_not_for_who_asks(task, collect):
    """And only the answerer is told the keyword."""
    with Player(task, guess="a zebra (striped)") as end:
        assert collect(end, "simulate", "--limit", "1") == 0
    row = collect.rows()[0]
    assert not row["won"] and len(row["rounds"]) == 20 and {turn[2] for turn in row["rounds"]} == {"zebra"}
    answers, rest = asked(end, teacher.ANSWERER), asked(end, teacher.ASKER)
    guesses = [text for text in rest if "Guess the keyword." in text]
    asks = [text for text in rest if "Guess the keyword." not in text]
    assert (len(answers), len(guesses), len(asks)) == (20, 20, 40)
    assert all(
        text.count("Guess: zebra") == i for texts in (answers, guesses) for i, text in enumerate(texts)
    )
    assert not any("zebra" in text for text in asks)
    assert [text.count("Question:") for text in asks] == [i // 2 for i in range(40)]
    assert all(f"Keyword: {row['keyword']}" in text for text in answers)
    assert not any(names(text, [row["keyword"]]) for text in rest)


def test_a_hint_comes_from_a_round_of_8_to_13_on_and_is_never_stored(world_file):
    task = TwentyQuestions(Options(world=str(world_file), teacher="http://x", strategy="hinted"))
    examples, question = task.examples("train"), "Does this lead there?"
    with Player(task, guess="zebra", told=lambda keyword: question) as end:
        records = [record for _, record in task.attempt(examples, Players(end))]
        rows = [row for record in records for row in task.collected(record)]
        stored = json.dumps(rows).lower()
        assert "secret" not in stored and "hint" not in stored.replace('"strategy": "hinted"', "")
        firsts = set()
        for row in rows:
            asks = [turn[0] for turn in row["rounds"]]
            first = asks.index(question) + 1
            assert asks[first - 1 :] == [question] * (20 - first + 1)
            firsts.add(first)
            told = [text for text in asked(end, teacher.ASKER) if f"keyword is {row['keyword']}." in text]
            assert len(told) == 2 * (20 - first + 1)  # candidates and pick, not the guess
            assert all(teacher.LIST in text or "helps most" in text for text in told)
        assert firsts <= set(range(8, 14)) and len(firsts) > 2
        again = [record for example in examples[1:3] for _, record in task.attempt([example], Players(end))]
    # the round follows from seed and keyword
    assert [record for record in records if record in again] == again


def test_a_game_ends_before_a_question_that_names_the_keyword(task, collect, capsys):
    with Player(task, guess="zebra", told=lambda keyword: f"Is it {keyword}s or what?") as end:
        assert collect(end, "hinted", "--limit", "2") == 0
    for row in collect.rows():
        assert row["cut"] and not row["won"] and 7 <= len(row["rounds"]) <= 12
        assert not any(names(turn[0], [row["keyword"]]) for turn in row["rounds"])
        seats = Counter(seat for seat, *_ in chats(task, row))  # what came before is learned
        assert seats == dict.fromkeys(("asker", "answerer", "guesser"), len(row["rounds"]))
    assert "2 games ended, a question named the keyword" in capsys.readouterr().out


def test_a_snapshot_is_one_reply_and_teaches_asks_and_the_last_guess(task, collect, monkeypatch, capsys):
    monkeypatch.setattr(task.world, "questions", [*task.world.questions, "Is it an oak?", "Is it red?"])
    with Player(task) as end:
        assert collect(end, "snapshot") == 0
    assert len(end.said) == 8
    for row in collect.rows():
        oak = row["keyword"] == "oak"
        assert row["won"] and row["cut"] == oak and len(row["rounds"]) == (6 if oak else 8)
        samples, turns = chats(task, row), [tuple(turn) for turn in row["rounds"]]
        assert samples == [("asker", turns[:i], turns[i][0]) for i in range(1, len(turns))] + [
            ("guesser", turns, row["keyword"])
        ]
    shown = capsys.readouterr().out
    assert "1 snapshots cut where a question names the keyword" in shown
    assert "samples: 54 ask, 0 answer, 8 guess" in shown


def test_the_table_and_a_run_play_from_the_short_prompts(task, collect, run):
    assert collect("table", "cheap") == 0
    assert all(row["won"] and row["teacher"] == "table" for row in collect.rows())
    collect.path.unlink()
    few = ["--max-new", "3", "--threads", "1", "--limit", "2"]
    assert collect(str(run), "cheap", *few) == 0
    collect.path.unlink()
    assert collect(str(run / "model"), "simulate", *few) == 0  # a model that is no run: the long prompts


@pytest.mark.parametrize(
    "who, strategy, more, said",
    [
        ("", "cheap", ["--run", "RUN"], "--strategy cheap: needs a --teacher"),
        ("table", "facts", [], "asks a model"),
        ("table", "simulate", [], "table knows the short prompts of the game only"),
        ("RUN", "snapshot", [], "knows the short prompts of the game only"),
        ("http://127.0.0.1:9/v1", "play", [], "an endpoint takes the other strategies"),
        ("table", "cheap", ["--run", "x"], "--teacher: takes the place of"),
        ("http://127.0.0.1:9/v1", "cheap", ["--price", "1"], "--price 1: must be two numbers"),
        ("http://127.0.0.1:9/v1", "cheap", ["--n", "2"], "--n needs --temperature"),
    ],
)
def test_what_does_not_go_together_is_a_wrong_call(collect, run, capsys, who, strategy, more, said):
    who, *more = (str(run) if word == "RUN" else word for word in (who, *more))
    assert collect(who, strategy, *more) == 2
    assert said in capsys.readouterr().err and not collect.path.exists()


# ------------------------------------------------------------------------------------------------ failures
def test_what_fails_for_a_while_changes_no_game(task, collect, monkeypatch, waits):
    hasty = functools.partialmethod(Teacher.__init__, timeout=0.3)
    monkeypatch.setattr(infer, "Teacher", type("Hasty", (Teacher,), {"__init__": hasty}))
    with Player(task) as end:
        assert collect(end, "cheap", "--limit", "3") == 0
    untroubled = collect.path.read_bytes()
    collect.path.unlink()
    script = [500, "slow", 429, "ok", "nonsense", "null", "ok", "other", "hang up", 429, "ok", 503, "slow"]
    with Player(task, *script) as end:
        assert collect(end, "cheap", "--limit", "3", "--workers", "2") == 0
    assert collect.path.read_bytes() == untroubled and end.script == []
    assert waits.count(0.0) == 4 and 1.0 in waits  # 429, 500, 503 as they say; the rest after a second


@pytest.mark.parametrize("strategy, calls", [("simulate", 4), ("hinted", 4), ("cheap", 3), ("snapshot", 1)])
def test_a_teacher_of_nonsense_ends_its_games(task, collect, capsys, strategy, calls):
    with Player(task) as end:
        end.text = lambda system, user: "lorem ipsum"
        assert collect(end, strategy, "--limit", "2") == 0
    assert len(end.said) == 2 * calls and collect.rows() == []
    what = "6 replies without a question, 2 games ended, no question"
    what = "2 snapshots without a line" if strategy == "snapshot" else what
    shown = capsys.readouterr().out
    assert "games: 2, 0 won" in shown and what in shown and "samples: 0 ask, 0 answer, 0 guess" in shown
    if calls > 1:  # asked anew, in other words
        assert len({messages[1]["content"] for messages, _ in end.said}) == calls


def test_a_reply_without_sense_is_dropped_and_the_game_goes_on(task, collect, capsys):
    nonsense = {"answer": "maybe", "guess": "(?)", "ask": "no."}

    def sometimes(system, user):
        kind = "answer" if system == teacher.ANSWERER else "guess" if "Guess the" in user else "ask"
        return nonsense.pop(kind, None) or Player.text(end, system, user)

    with Player(task) as end:
        end.text = sometimes
        assert collect(end, "cheap", "--limit", "1") == 0
    (row,) = collect.rows()
    assert row["rounds"][0][1:] == ["unsure", ""] and row["won"]
    reasons = ("1 replies without a question", "1 answers neither yes nor no", "1 empty guesses")
    shown, n = capsys.readouterr().out, len(row["rounds"])
    assert all(reason in shown for reason in reasons)
    assert f"samples: {n} ask, {n - 1} answer, {n - 1} guess" in shown


@pytest.mark.parametrize("stop", [0, 30, 75])
def test_a_killed_call_goes_on_without_paying_twice(task, collect, monkeypatch, capsys, stop):
    """Whatever an endpoint says when it is asked the same again: no more replies are paid than the games
    that are kept consist of, four a round."""
    monkeypatch.setattr(infer, "CHUNK", 3)
    journal, replies = (collect.path.with_name(f"games.jsonl{end}") for end in (".part", ".replies.part"))
    with Player(task, *["ok"] * stop, *[401] * 9, drift=True) as end:
        assert collect(end, "simulate", "--limit", "7", "--workers", "3") == 1
        assert "401" in capsys.readouterr().err and not collect.path.exists()
        paid = len(replies.read_text().splitlines()) if replies.exists() else 0
        assert paid == len(end.said) >= stop
        assert stop < 75 or len(journal.read_bytes().splitlines()) > 3, "a part and more has ended"
        for path in (journal, replies):
            with open(path, "ab") as file:
                file.write(b'{"row": "a line that a kill cu')
        end.script.clear()
        assert collect(end, "simulate", "--limit", "7", "--workers", "3", "--price", "1000,10") == 0
    rows, n = collect.rows(), len(end.said)
    assert n == 4 * sum(len(row["rounds"]) for row in rows)
    before = f" ({3 * paid} and {2 * paid} paid before)" * bool(paid)
    cost = f"tokens: {3 * n} of prompts, {2 * n} of replies{before}; cost {(3000 * n + 20 * n) / 1e6:.4g}\n"
    assert cost in capsys.readouterr().out
    words = [example["keyword"] for example in task.examples("train")[:7]]
    assert [row["keyword"] for row in rows] == words
    assert list(collect.path.parent.iterdir()) == [collect.path]


# ------------------------------------------------------------------------------------------------ self-play
def test_a_model_answers_everything_and_its_facts_are_a_world(task, collect, run):
    assert collect(str(run), "facts", "--threads", "1") == 0
    world = world_of(collect.path)
    assert set(world.keywords) == set(task.world.keywords)
    assert set(world.questions) == set(task.world.questions)
    assert ((world.chance > 0) & (world.chance < 1)).all()


SAMPLED = "--temperature 1 --noise 0,0.5 --limit 5 --max-new 3 --tries 1 --threads 1".split()


def test_a_model_plays_several_games_of_each_keyword_under_noise(run, tmp_path, monkeypatch):
    monkeypatch.setattr(match, "ROUNDS", 6)
    call = ["collect", "--run", str(run), "--n", "4", *SAMPLED, "--out"]
    assert infer.main([*call, str(tmp_path / "a.jsonl")]) == 0
    rows = read_rows(tmp_path / "a.jsonl")
    assert Counter(row["keyword"] for row in rows) == {row["keyword"]: 4 for row in rows}
    assert {row["noise"] for row in rows} == {0.0, 0.5} and {row["strategy"] for row in rows} == {"play"}
    for row in rows:
        assert len(row["flipped"]) == len(row["rounds"]) and (row["noise"] or not any(row["flipped"]))
        assert all(len(turn) == 3 for turn in row["rounds"])
    assert len({str(row["flipped"]) for row in rows if row["noise"]}) > 2
    assert len({str(row["rounds"]) for row in rows}) > 6
    monkeypatch.setattr(infer, "CHUNK", 8)  # two keywords at a time: noise and flips are the same games'
    assert infer.main([*call, str(tmp_path / "b.jsonl")]) == 0
    for row, other in zip(rows, read_rows(tmp_path / "b.jsonl")):
        n = min(len(row["rounds"]), len(other["rounds"]))
        assert row["noise"] == other["noise"] and row["flipped"][:n] == other["flipped"][:n]


def test_the_tables_own_play_is_stored_with_what_was_flipped(task, collect):
    assert collect("table", "play", "--n", "3", "--noise", "0.3") == 0
    rows = collect.rows()
    assert len(rows) == 24 and {row["noise"] for row in rows} == {0.3}
    for row in rows:
        for (question, answer, _), flipped in zip(row["rounds"], row["flipped"]):
            assert (answer == "yes") ^ task.world.answer(row["keyword"], question) == flipped
        # an answer that was flipped is no lesson for the answerer
        answers = [reply for seat, _, reply in chats(task, row) if seat == "answerer"]
        assert answers == [t[1] for t, flipped in zip(row["rounds"], row["flipped"]) if not flipped]


# ------------------------------------------------------------------------------------------------ training
GAME = {"keyword": "apple", "won": True}
GAME |= {"rounds": [["Is it alive?", "yes", "oak"], ["Is it food?", "yes", "apple"]]}


def test_lost_games_are_learned_from_only_when_asked_for(world_file, tmp_path):
    rows = [GAME, GAME | {"won": False}, GAME | {"won": False, "cut": True}]
    path = write_rows(tmp_path / "games.jsonl", rows)
    for lost, games, dropped in ((False, 2, {"lost games (--lost takes them)": 1}), (True, 3, {})):
        task = TwentyQuestions(Options(world=str(world_file), data=path, lost=lost))
        assert len(task.examples("valid")) == games and task.dropped == dropped


def test_a_prompt_that_names_the_keyword_is_refused_when_games_are_read(world_file, tmp_path):
    """Also by its alternates, which the world has; what came before is learned."""
    leaks = [GAME["rounds"][0], ["Is it a Red-Apple tart?", "no", "x"], *GAME["rounds"]]
    first = [["Is it an apple?", "yes"], ["Is it food?", "yes"]]
    rows = [GAME | {"rounds": leaks}, {"keyword": "apple", "rounds": first}]
    path = write_rows(tmp_path / "games.jsonl", rows)
    task = TwentyQuestions(Options(world=str(world_file), data=str(path)))
    assert task.dropped == {"games cut before a question that names the keyword": 2}
    (game,) = task.games
    assert (game["turns"], game["guesses"]) == ([("Is it alive?", "yes")], ["oak"])


def test_a_file_of_mere_keywords_is_enough_to_collect_about_them(collect, task, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("[keywords]\neagle\noak | oak tree\n")
    with Player(task) as end:
        assert collect(end, "cheap", "--world", str(words)) == 0
    rows, texts = collect.rows(), [messages[1]["content"] for messages, _ in end.said]
    assert {row["keyword"] for row in rows if row["won"]} == {"eagle", "oak"}
    assert len(texts) == 3 * sum(len(row["rounds"]) for row in rows)  # once for each phase
    assert not any("Candidates" in text or "last line\n" in text for text in texts)
