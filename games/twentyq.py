"""20 Questions: one player asks and guesses, the other answers about a keyword.

The rules are those of Kaggle's llm_20_questions environment: ask, answer, guess, 20 rounds. A model plays
every seat from the prompts below, in training and at play alike: one sample per phase and round. Past guesses
are not shown to the asker: measured, they cost wins (a player that reads its own wrong guesses learns to
trust them)."""

import re
import string
from dataclasses import dataclass, replace

import numpy as np

from games.rows import read_rows
from games.task import Chat, Episode, Reply, Task, wilson
from games.twentyq_table import WORLD, Belief, TablePlayer, World, plain

ROUNDS = 20
MAX_QUESTION, MAX_GUESS = 750, 100  # characters

ASKER = "You are playing 20 Questions. Find the keyword with short yes or no questions."
FIRST = "Ask the first question."
GUESS = "What is the keyword?"
ANSWERER = "You are playing 20 Questions. Answer the question about the keyword with yes or no."


# ------------------------------------------------------------------------------------------------ rules
def normalise(text):
    """The environment's form of a guess: lower case without "the" (anywhere, "mother" too), spaces and
    punctuation."""
    text = text.lower().replace("the", "").replace(" ", "")
    return text.translate(str.maketrans("", "", string.punctuation))


def same(a, b):
    """Whether two guesses count as the same word: equal, or equal but for one final s or es if both have 3
    letters."""
    a, b = normalise(a), normalise(b)
    if a == b:
        return True
    if len(a) < 3 or len(b) < 3:
        return False
    return any(
        x.endswith(end) and x.removesuffix(end) == y for x, y in ((a, b), (b, a)) for end in ("s", "es")
    )


def correct(guess, keyword, alternates=()):
    return any(same(guess, word) for word in (keyword, *alternates))


def names(text, words):
    """Whether a text names one of some keywords: as whole words, by the rule of `same`."""
    spoken = re.findall(r"\w+", text.lower())
    whole = normalise(" ".join(spoken))
    near = [word for word in words if normalise(word)[:-2] in whole]  # the rest need no closer look
    return any(
        same(" ".join(spoken[i : i + n]), word)
        for word in near
        for n in range(1, len(word.split()) + 2)
        for i in range(len(spoken) - n + 1)
    )


def unnamed(questions, words):
    """How many of the questions come before the first that names one of some keywords."""
    return next((i for i, question in enumerate(questions) if names(question, words)), len(questions))


def yes_or_no(text):
    """The environment's reading of an answer: "yes" wherever it occurs, else "no", else None, which
    forfeits."""
    text = text.lower()
    return "yes" if "yes" in text else "no" if "no" in text else None


def reward(round_won):
    """The environment's reward for a win in round 1..20 (20 down to 1), or -1 without one (None)."""
    return -1 if round_won is None else ROUNDS + 1 - round_won


# ------------------------------------------------------------------------------------------------ prompts
def ask_prompt(turns):
    """The conversation in which the next question is asked, after turns of (question, answer)."""
    messages = [{"role": "system", "content": ASKER}, {"role": "user", "content": FIRST}]
    for question, answer in turns:
        messages += [{"role": "assistant", "content": question}, {"role": "user", "content": answer}]
    return messages


def guess_prompt(turns):
    """The conversation in which the keyword is guessed, after at least one turn."""
    *messages, last = ask_prompt(turns)
    return [*messages, {"role": "user", "content": f"{last['content']}\n{GUESS}"}]


def answer_prompt(keyword, question):
    return [
        {"role": "system", "content": ANSWERER},
        {"role": "user", "content": f"Keyword: {keyword}\n{question}"},
    ]


def read_prompt(messages):
    """(seat, content) of a conversation made above: "asker" or "guesser" with turns, "answerer" with
    (keyword, question)."""
    last = messages[-1]["content"]
    if messages[0]["content"] == ANSWERER:
        return "answerer", tuple(last.removeprefix("Keyword: ").split("\n", 1))
    contents = [message["content"].split("\n")[0] for message in messages[2:]]
    turns = list(zip(contents[::2], contents[1::2]))
    return ("guesser" if last.endswith(GUESS) else "asker"), turns


def said(messages, reply):
    return Chat([*messages, {"role": "assistant", "content": reply}], learn="last")


def last_line(text):
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else ""


# ------------------------------------------------------------------------------------------------ the task
@dataclass
class Options:
    world: str = str(WORLD)  # file of keywords, questions and facts
    data: str = ""  # train on games {"keyword", "rounds": [[question, answer, guess]]}: file, folder, Hub
    rows: str = ""  # of --data: a slice such as 0:1000
    lost: bool = False  # of --data: learn from lost games too
    noise: str = "0,0.05,0.1,0.2"  # shares of flipped answers to evaluate at, or to play collected games at
    flips: float = 0.3  # training games flip up to this share of the answers
    unsure: float = 0.1  # share of training games in which some answers are "unsure", as people's are
    explore: float = 0.15  # share of training questions asked at random: states off the teacher's path
    pool: int = 40  # separating questions the teacher asks
    opening: int = 10  # of these asked first, in fixed order
    cells: int = 20  # answers about the keyword taught beside each training game
    tries: int = 24  # next best replies to look through for one not said before; fewer save time
    greedy: bool = True  # evaluate plain greedy play, where repeats are allowed, as well
    answers: int = 4000  # cells of the table that the answerer is scored on, half of them true
    teacher: str = ""  # collect: who plays: table, a run or model, or an endpoint (https://HOST/v1)
    teacher_model: str = ""  # name of the model at the endpoint; the key is in PARLOR_KEY
    strategy: str = "play"  # collect: play, simulate, hinted, snapshot or cheap (games/twentyq_teacher.py)
    workers: int = 8  # collect: requests to the endpoint at a time
    price: str = ""  # collect: of a million tokens at the endpoint, IN,OUT (prompts and replies), for the sum


class TwentyQuestions(Task):
    Options = Options
    idle = ("workers", "price", "lost")

    def __init__(self, options=None, seed=0):
        super().__init__(options, seed)
        self.world = World(self.options.world)
        self.teacher = Belief(self.world, self.options.pool, self.options.opening)
        self.players = {"table": self.table_player}
        self.games = list(self.read_games()) if self.options.data else []
        if self.options.teacher:
            self.max_new = 512  # a teacher reasons, and may write a whole game
        try:
            self.noises = [float(share) for share in self.options.noise.split(",")]
        except ValueError as error:
            raise ValueError(f"--noise {self.options.noise}: must be shares such as 0,0.1") from error

    read = staticmethod(read_prompt)

    # -------------------------------------------------------------------------------------------- training
    def examples(self, split):
        """Keywords of the world, or recorded games split by keyword; "test" is always the world."""
        if split != "test" and self.options.data:
            held = {
                word for i, word in enumerate(sorted({game["keyword"] for game in self.games})) if i % 20 == 0
            }
            return [game for game in self.games if (game["keyword"] in held) == (split == "valid")]
        order = np.random.default_rng([self.seed, 20]).permutation(len(self.world.keywords))
        return [{"keyword": self.world.keywords[k]} for k in order]

    def read_games(self):
        rows = read_rows(self.options.data, self.options.rows, ("keyword", "rounds"))
        return [game for where, row in rows if (game := self.read_game(where, row))]

    def read_game(self, where, row):
        """The game in a row of --data, or None where it is left out and counted. A game ends for us where a
        question names the keyword: what comes after would be learned from prompts that hold the answer."""
        for key, kind in (("keyword", str), ("rounds", list)):
            if not isinstance(row.get(key), kind):
                raise ValueError(f"{where}: {key!r} is missing or not a {kind.__name__}")
        keyword, turns, guesses = row["keyword"], [], []
        for turn in row["rounds"]:
            if not (isinstance(turn, list) and len(turn) >= 2 and all(isinstance(x, str) for x in turn[:3])):
                raise ValueError(
                    f'{where}: a round must be [question, "yes" or "no"], and its guess if there is one, '
                    f"found {turn!r}"
                )
            turns.append((turn[0], plain(turn[1])))
            guesses += turn[2:3]
        flipped = row.get("flipped", [False] * len(turns))
        if guesses and len(guesses) < len(turns):
            raise ValueError(f'{where}: all rounds have a guess ("" is none) or no round has one')
        if not (isinstance(flipped, list) and len(flipped) == len(turns)):
            raise ValueError(f"{where}: 'flipped' must be a list with true or false for each round")
        if row.get("won") is False and not row.get("cut") and not self.options.lost:
            return self.drop("lost games (--lost takes them)")
        if len(turns) > ROUNDS or not turns:
            return self.drop("more than 20 rounds" if turns else "no rounds")
        if any(answer not in ("yes", "no", "unsure") for _, answer in turns):
            return self.drop("an answer other than yes, no and unsure")
        clean = unnamed([question for question, _ in turns], self.words(keyword))
        if clean < len(turns):
            self.drop("rest of a game, whose question names the keyword")
        game = {"keyword": keyword, "turns": turns[:clean]}
        if guesses:
            game["guesses"] = guesses[:clean]
        if any(flipped):
            game["flipped"] = flipped[:clean]
        if row.get("strategy") == "snapshot":
            game["snapshot"] = True
        return game if clean else None

    def words(self, keyword):
        """The keyword and what else counts as it."""
        return [keyword, *self.world.alternates.get(keyword, ())]

    def items(self, example, rng):
        """Chats for every phase and round of a game about the keyword, recorded or fresh by the teacher."""
        if "turns" in example:
            return self.recorded_items(example)
        keyword = example["keyword"]
        world, belief, k = self.world, self.teacher.restart(), self.world.keyword_index[plain(keyword)]
        rate = 0.0 if rng.random() < 0.2 else rng.uniform(0, self.options.flips)
        unsure = 0.15 if rng.random() < self.options.unsure else 0.0
        turns, chats, last = [], [], ROUNDS
        while len(turns) < last:
            best = belief.questions()[0]
            chats.append(said(ask_prompt(turns), world.questions[best]))
            if len(turns) >= self.options.opening and rng.random() < self.options.explore:
                best = int(rng.choice([q for q in belief.pool if q not in belief.asked] or [best]))
            yes = bool(world.table[k, best]) ^ (rng.random() < rate)
            answer = "unsure" if rng.random() < unsure else "yes" if yes else "no"
            belief.update(best, answer)
            turns.append((world.questions[best], answer))
            guess = belief.guesses()[0]
            # beside the best guess one drawn from the belief: the next best must be worth making too
            drawn = int(rng.choice(len(world.keywords), p=belief.probabilities()))
            chats += [said(guess_prompt(turns), world.keywords[taught]) for taught in sorted({guess, drawn})]
            if guess == k:  # a player that has not learned the table yet still needs the rounds that follow
                last = min(last, len(turns) + 2)
        cells = min(self.options.cells, len(world.questions))
        for q in rng.choice(len(world.questions), cells, replace=False):
            truth = "yes" if world.table[k, q] else "no"
            chats.append(said(answer_prompt(keyword, world.questions[q]), truth))
        return chats

    def recorded_items(self, game):
        """Somebody's game: its questions, its answers (but flipped ones) as the answerer's lessons, its
        guesses; the keyword as the last one where it has none. Whoever wrote a snapshot knew the keyword from
        the start: its first question is no lesson, and nobody gave its answers."""
        keyword, turns, snapshot = game["keyword"], game["turns"], game.get("snapshot", False)
        flipped = game.get("flipped", [False] * len(turns))
        guesses = game.get("guesses", [""] * (len(turns) - 1) + [keyword])
        chats = [said(ask_prompt(turns[:i]), turns[i][0]) for i in range(int(snapshot), len(turns))]
        chats += [
            said(answer_prompt(keyword, question), answer)
            for (question, answer), wrong in zip(turns, flipped)
            if not (snapshot or wrong or answer == "unsure")
        ]
        return chats + [said(guess_prompt(turns[: i + 1]), guess) for i, guess in enumerate(guesses) if guess]

    def texts(self):
        """All that is ever said in this world, for a tokenizer, often enough to become one token each."""
        fixed = [ASKER, FIRST, ANSWERER, "Keyword: ", "yes", "no", "unsure", f"\n{GUESS}"]
        return [text for text in fixed + self.world.questions + self.world.keywords for _ in range(4)]

    # -------------------------------------------------------------------------------------------- play
    def table_player(self):
        return TablePlayer(self, self.world)

    def play(self, examples, agent, answerer=None, noise=0.0, repeats=False):
        """Play one game per example in lock step, the agent asking and guessing: list of Episodes.

        answerer: an agent, by default the truthful table. noise: share of answers flipped, one or one a game,
        drawn from (seed, game, round); a game is its place, or the "draw" of its example. repeats=False: a
        question or guess already made in a game is replaced by the agent's next best."""
        answerer = answerer or self.table_player()
        games = [{"example": example, "turns": [], "replies": [], "won": None} for example in examples]
        keys = [[self.seed, *example.get("draw", (i,))] for i, example in enumerate(examples)]
        draws = np.stack([np.random.default_rng(key).random(ROUNDS) for key in keys])  # (games, rounds)
        flips = draws < np.reshape(noise, (-1, 1))
        for number in range(ROUNDS):
            running = [(i, game) for i, game in enumerate(games) if game["won"] is None]
            if not running:
                break
            histories = [
                [(turn["question"], turn["answer"]) for turn in game["turns"]] for _, game in running
            ]
            made = [[turn["question"] for turn in game["turns"]] for _, game in running]
            asked = self.say(agent, [ask_prompt(turns) for turns in histories], made, repeats, MAX_QUESTION)
            prompts = [
                answer_prompt(game["example"]["keyword"], question.text)
                for (_, game), (question, _) in zip(running, asked)
            ]
            answers = [yes_or_no(replies[0].text) or "no" for replies in answerer.reply(prompts)]
            for (i, game), turns, (question, repeated), answer in zip(running, histories, asked, answers):
                flipped = bool(flips[i, number])
                answer = {"yes": "no", "no": "yes"}[answer] if flipped else answer
                turn = {"question": question.text, "answer": answer, "flipped": flipped, "repeated": repeated}
                game["turns"].append(turn | {"known": plain(question.text) in self.world.question_index})
                game["replies"].append(question)
                turns.append((question.text, answer))
            made = [[turn["guess"] for turn in game["turns"][:-1]] for _, game in running]
            guesses = self.say(agent, [guess_prompt(turns) for turns in histories], made, repeats, MAX_GUESS)
            for (_, game), (guess, repeated) in zip(running, guesses):
                game["turns"][-1] |= {"guess": guess.text, "guess_repeated": repeated}
                game["replies"].append(guess)
                keyword = game["example"]["keyword"]
                if correct(guess.text, keyword, self.world.alternates.get(keyword, ())):
                    game["won"] = number + 1
        return [
            Episode(
                game["example"],
                game["turns"],
                game["replies"],
                reward(game["won"]),
            )
            for game in games
        ]

    def rollout(self, examples, agent):
        """Plain games: a reply that is replaced by a better one would be no sample of the model's."""
        return self.play(examples, agent, repeats=True)

    def say(self, agent, prompts, made, repeats, limit):
        """The agent's Reply to each prompt, cut to its last line and `limit` characters, and whether it
        repeats what was `made` before: the best one that does not, among the --tries best. List of (Reply,
        bool)."""
        chosen, open_rows = [(Reply(""), True)] * len(prompts), list(range(len(prompts)))
        tries = max(1, self.options.tries)
        for n in (1,) if repeats else sorted({1, min(6, tries), tries}):
            for row, replies in zip(open_rows, agent.reply([prompts[row] for row in open_rows], n)):
                before = {plain(text) for text in made[row]}
                cut = [replace(reply, text=last_line(reply.text)[:limit]) for reply in replies]
                new = [reply for reply in cut if reply.text and plain(reply.text) not in before]
                if new or cut:
                    chosen[row] = (new or cut)[0], not new
            # an empty reply means that the model does not end its replies: looking further is no use
            open_rows = [row for row in open_rows if chosen[row][1] and chosen[row][0].text]
            if not open_rows:
                break
        return chosen

    def interact(self, agent, read, show, seat, seed):
        """Play with a person (games.twentyq_terminal); a scripted game where nobody is there (read is
        None)."""
        from games import twentyq_terminal as terminal

        if read is None:
            terminal.show_game(self.play(self.examples("test")[:1], agent)[0], show)
        elif seat == "answerer":
            terminal.model_answers(self, agent, read, show, seed)
        else:
            terminal.model_asks(self, agent, read, show)

    # -------------------------------------------------------------------------------------------- collecting
    def attempt(self, examples, agent):
        """The games to collect, --n of each keyword: (place, record) when the last of a keyword has ended."""
        from games import twentyq_teacher as teacher

        return teacher.collect(self, examples, agent)

    def collected(self, record):
        """The games of a record, as rows for --data."""
        return [
            {name: value for name, value in game.items() if name != "dropped"}
            for game in record["games"]
            if game["rounds"]
        ]

    def tally(self, records):
        from games import twentyq_teacher as teacher

        return teacher.tally(self, records)

    # -------------------------------------------------------------------------------------------- evaluation
    def evaluate(self, examples, agent):
        """Win rates by noise and their intervals, plain greedy play, the answerer's accuracy, the table
        player."""
        metrics, intervals, baselines, records = {}, {}, {}, []
        for noise in self.noises:
            episodes = self.play(examples, agent, noise=noise)
            tag = f"@{noise:g}"
            summarise(episodes, tag, metrics, intervals)
            records += [{"noise": noise, **record(episode)} for episode in episodes]
            summarise(self.play(examples, self.table_player(), noise=noise), tag, baselines, {})
        if self.options.greedy:
            summarise(
                self.play(examples, agent, noise=self.noises[0], repeats=True),
                f"_greedy@{self.noises[0]:g}",
                metrics,
                intervals,
            )
        if hasattr(agent, "choose"):
            metrics |= self.answer_accuracy(agent, self.options.answers)
        return {
            "n": len(examples),
            "metrics": metrics,
            "intervals": intervals,
            "baselines": baselines,
            "records": records,
        }

    def answer_accuracy(self, agent, n):
        """The agent as answerer against the truth table: n cells drawn by the seed, half of them true."""
        if n < 2:
            return {}
        rng = np.random.default_rng([self.seed, 21])
        rates = []
        for truth in (True, False):
            cells = np.argwhere(self.world.table == truth)
            cells = cells[rng.choice(len(cells), min(n // 2, len(cells)), replace=False)]
            prompts = [answer_prompt(self.world.keywords[k], self.world.questions[q]) for k, q in cells]
            says_yes = [yes > no for yes, no in agent.choose(prompts, ["yes", "no"])]
            rates.append(float(np.mean(np.array(says_yes) == truth)))
        return {"answerer_true": rates[0], "answerer_false": rates[1], "answerer_balanced": sum(rates) / 2}


def summarise(episodes, tag, metrics, intervals):
    """Add win rate (with its Wilson interval), mean rounds to win and repeats of some games under names
    ending in tag."""
    n, won = len(episodes), [len(episode.turns) for episode in episodes if episode.reward > 0]
    turns = [turn for episode in episodes for turn in episode.turns]
    metrics[f"win_rate{tag}"] = len(won) / n
    intervals[f"win_rate{tag}"] = wilson(len(won), n)
    metrics[f"rounds_to_win{tag}"] = float(np.mean(won)) if won else None
    metrics[f"repeated_questions{tag}"] = float(np.mean([turn["repeated"] for turn in turns]))
    metrics[f"unknown_questions{tag}"] = float(np.mean([not turn["known"] for turn in turns]))


def record(episode):
    rounds = [[turn["question"], turn["answer"], turn["guess"]] for turn in episode.turns]
    return {**episode.example, "won": episode.reward > 0, "rounds": rounds}
