"""20 Questions: one player asks and guesses, the other answers about a keyword.

A round is ask, answer, guess; there are 20. A model plays every seat from the same prompts in training and at
play (games.twentyq.prompts): one sample per phase and round."""

import zlib
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from games.rows import read_rows
from games.task import Chat, Episode, Reply, Task
from games.twentyq import recorded
from games.twentyq.experiments import own_games as own
from games.twentyq.figures import LEAST, groups, record, summarise
from games.twentyq.prompts import (
    ANSWERER,
    ASKER,
    FIRST,
    GUESS,
    MAX_GUESS,
    MAX_QUESTION,
    ROUNDS,
    answer_prompt,
    ask_prompt,
    correct,
    guess_prompt,
    last_line,
    read_prompt,
    reward,
    said,
    yes_or_no,
)
from games.twentyq.world import WORLD, Belief, TablePlayer, plain, read_keywords, world_of


# ------------------------------------------------------------------------------------------------ the task
@dataclass
class Options:
    world: str = str(WORLD)  # file of keywords, questions and facts, or JSON lines of recorded answers
    held: float = 0.0  # share of the keywords kept from training; of recorded games a twentieth at least
    keywords: str = ""  # evaluate on these: a word a line, rows with a keyword, or Kaggle's JSON
    answerer: str = "table"  # who answers in evaluations: table, self, a run, a model folder, an endpoint
    data: str = ""  # train on games {"keyword", "rounds": [[question, answer, guess]]}: file, folder, Hub
    rows: str = ""  # of --data: a slice such as 0:1000
    shuffle: float = 0.0  # of --data: share of games read for guesses alone, their turns in random order
    tutor: str = ""  # of --data: learn these recorded answers and a belief's guesses (--strategy facts)
    lost: bool = False  # of --data: learn from lost games too
    noise: str = "0,0.05,0.1,0.2"  # shares of flipped answers to evaluate at, or to play collected games at
    flips: float = 0.3  # training games flip up to this share of the answers
    unsure: float = 0.1  # share of training games in which some answers are "unsure", as people's are
    explore: float = 0.15  # share of training questions asked at random: states off the teacher's path
    pool: int = 40  # separating questions the teacher asks
    opening: int = 10  # of these asked first, in fixed order
    cells: int = 20  # answers about the keyword taught beside each training game, also by a --tutor
    tries: int = 24  # replies of beam search, of which the best not said before is taken; fewer save time
    greedy: bool = True  # evaluate plain greedy play, where repeats are allowed, as well
    credit: float = 2.0  # grpo: weight, beside the win, of bits and chances that a turn gave away
    candidates: int = 0  # at play: best questions of which the one is asked that a belief learns most from
    belief: str = ""  # that belief: recorded answers, such as the model's own; by default the world
    guesses: str = "model"  # at play: who guesses, the model, the belief, or both
    protocol: str = ""  # at play: half answers questions of letters by rule, alpha asks such ones as well
    think: float = 0.0  # at play: seconds for thinking aloud before each question and guess
    replay: str = ""  # play: show the recorded games of this file, round by round, with the belief
    against: list = ()  # eval: a tournament of these: table, random, runs, alpha+RUN, half+RUN, false+RUN
    alpha_words: str = ""  # alpha: its words, one a line, how often after a tab; by default the world's
    alpha_control: bool = False  # alpha: test its partner first; pays where one in four only pretends
    answers: int = 4000  # cells of the table that the answerer is scored on, half of them true
    wander: float = 0.0  # collect, of its own play: share of the questions that are asked at random
    teacher: str = ""  # collect: who plays: table, a run or model, or an endpoint (https://HOST/v1)
    teacher_model: str = ""  # name of the model at the endpoint; the key is in PARLOR_KEY
    strategy: str = "play"  # collect: play, compare, facts, simulate, hinted, snapshot or cheap
    workers: int = 8  # collect: requests to the endpoint at a time
    price: str = ""  # collect: of a million tokens at the endpoint, IN,OUT (prompts and replies), for the sum


SHARES = "held", "shuffle", "flips", "unsure", "explore", "wander"


class TwentyQuestions(Task):
    Options = Options
    idle = ("workers", "price", "lost")

    def __init__(self, options=None, seed=0):
        super().__init__(options, seed)
        self.item = Chat
        try:
            self.noises = [float(share) for share in self.options.noise.split(",")]
        except ValueError as error:
            raise ValueError(f"--noise {self.options.noise}: must be shares such as 0,0.1") from error
        shares = {name: getattr(self.options, name) for name in SHARES} | {"noise": self.noises}
        for name, share in shares.items():
            if not 0 <= np.min(share) <= np.max(share) <= 1:
                raise ValueError(f"--{name} {getattr(self.options, name)}: a share lies between 0 and 1")
        self.varied = any(self.noises)
        self.world = world_of(self.options.world)
        self.teacher = Belief(self.world, self.options.pool, self.options.opening)
        self.wrappers = {kind: partial(self.protocol_player, kind) for kind in ("alpha", "half", "false")}
        self.players = {"table": self.table_player, "random": partial(self.protocol_player, "random")}
        self.players |= self.wrappers
        self.alone = ("play",) if self.options.replay else ()
        self.answerer = None  # an agent, where --answerer names neither the table nor the player itself
        self.games = self.read_games() if self.options.data else []
        self.kept = None  # of these, what the loss learns from
        self.tutor = Belief(world_of(self.options.tutor)) if self.options.tutor else None
        if not self.options.data and (self.options.shuffle or self.tutor):
            raise ValueError("--shuffle and --tutor are of the games of --data: name these too")
        if self.options.teacher:
            self.max_new = 512  # a teacher reasons, and may write a whole game

    read = staticmethod(read_prompt)

    # -------------------------------------------------------------------------------------------- training
    def examples(self, split):
        """Keywords of the world, or recorded games split by keyword; "test" is the world or --keywords, what
        the model was not trained on first."""
        if split == "test":
            words = [{"keyword": word} for word in self.shuffled()]
            words = self.known(read_keywords(self.options.keywords)) if self.options.keywords else words
            seen = {plain(word) for word in self.seen}
            return sorted(words, key=lambda example: plain(example["keyword"]) in seen)
        if self.options.data:
            if self.item is not Chat and (self.tutor or self.options.shuffle):
                raise ValueError("--tutor and --shuffle are for imitation: leave them out with this --loss")
            if self.kept is None:  # counts what is left out
                self.kept = recorded.usable(self.games, self.item, self.options.lost, self.drop)
            every = round(1 / max(self.options.held, 0.05))
            held = set(sorted({row["keyword"] for row in self.kept})[::every])
            return [row for row in self.kept if (row["keyword"] in held) == (split == "valid")]
        words = self.shuffled()
        held = round(self.options.held * len(words))
        return [{"keyword": word} for word in (words[held:] if split == "train" else words[:held] or words)]

    def shuffled(self):
        """The world's keywords in an order that follows from the seed."""
        order = np.random.default_rng([self.seed, 20]).permutation(len(self.world.keywords))
        return [self.world.keywords[k] for k in order]

    def known(self, examples):
        """Those of the examples whose keyword the table knows, where it answers."""
        if self.options.answerer != "table":
            return examples
        found = [example for example in examples if plain(example["keyword"]) in self.world.keyword_index]
        if not found:
            raise ValueError(
                f"--keywords {self.options.keywords}: the table knows none of these {len(examples)}; take "
                "--answerer self or another player, or --world with recorded answers about them"
            )
        if len(found) < len(examples):
            print(
                f"--keywords: {len(examples) - len(found)} of {len(examples)} left out, unknown to the table"
            )
        return found

    def trained_on(self):
        return sorted({example["keyword"] for example in self.examples("train")})

    def read_games(self):
        rows = read_rows(self.options.data, self.options.rows, ("keyword",))
        return [game for where, row in rows if (game := recorded.read(self, where, row))]

    def words(self, keyword):
        """The keyword and what else counts as it."""
        return [keyword, *self.world.alternates.get(keyword, ())]

    def items(self, example, rng):
        """What a recorded game or comparison teaches, or Chats for every phase and round of a fresh game by
        the teacher about the keyword."""
        if "turns" in example:
            return recorded.items(example, self.item, rng, self.options, self.tutor)
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
        return chats + recorded.cells(world, keyword, self.options.cells, rng)

    def texts(self):
        """All that is ever said in this world, for a tokenizer, often enough to become one token each."""
        fixed = [ASKER, FIRST, ANSWERER, "Keyword: ", "yes", "no", "unsure", f"\n{GUESS}"]
        return [text for text in fixed + self.world.questions + self.world.keywords for _ in range(4)]

    # -------------------------------------------------------------------------------------------- play
    def table_player(self):
        return TablePlayer(self, self.world)

    def protocol_player(self, kind, agent=None):
        """A player of the alphabet's protocol (contest/alpha.py) over an agent, by default the table."""
        from games.twentyq.contest import alpha as twentyq_alpha

        return twentyq_alpha.player(self, kind, agent or self.table_player())

    def play(self, examples, agent, answerer=None, noise=0.0, repeats=False, seeds=None, wander=0.0):
        """Play one game per example in lock step, the agent asking and guessing: list of Episodes.

        answerer: an agent, by default the truthful table. noise: share of answers flipped, of all games or of
        each, drawn from (seed, game, round) or from the seeds of each game. repeats=False: a question or
        guess already made in a game is replaced by the agent's next best. wander: share of the questions that
        are replaced by one at random of the teacher's."""
        answerer = answerer or self.table_player()
        games = [{"example": example, "turns": [], "replies": [], "won": None} for example in examples]
        seeds = seeds or [[self.seed, i] for i in range(len(games))]
        rngs = [np.random.default_rng(seed) for seed in seeds]
        flips = np.stack([rng.random(ROUNDS) for rng in rngs]) < np.reshape(noise, (-1, 1))  # (games, rounds)
        wanders = np.stack([rng.random(ROUNDS) for rng in rngs]) < wander
        for number in range(ROUNDS):
            running = [(i, game) for i, game in enumerate(games) if game["won"] is None]
            if not running:
                break
            histories = [
                [(turn["question"], turn["answer"]) for turn in game["turns"]] for _, game in running
            ]
            made = [[turn["question"] for turn in game["turns"]] for _, game in running]
            asked = self.say(agent, [ask_prompt(turns) for turns in histories], made, repeats, MAX_QUESTION)
            for place, (i, _) in enumerate(running):
                if wanders[i, number]:
                    asked[place] = self.strange(made[place], rngs[i]), False
            prompts = [
                answer_prompt(game["example"]["keyword"], question.text)
                for (_, game), (question, _) in zip(running, asked)
            ]
            answers = [yes_or_no(replies[0].text) or "no" for replies in answerer.reply(prompts)]
            for (i, game), turns, (question, repeated), answer in zip(running, histories, asked, answers):
                flipped = bool(flips[i, number])
                answer = {"yes": "no", "no": "yes"}[answer] if flipped else answer
                turn = {"question": question.text, "answer": answer, "flipped": flipped, "repeated": repeated}
                turn["wandered"] = bool(wanders[i, number])
                known = self.world.answer(game["example"]["keyword"], question.text) is not None
                game["turns"].append(turn | {"known": known})
                game["replies"].append(question)
                turns.append((question.text, answer))
            made = [[turn["guess"] for turn in game["turns"][:-1]] for _, game in running]
            guesses = self.say(agent, [guess_prompt(turns) for turns in histories], made, repeats, MAX_GUESS)
            for (_, game), (guess, repeated) in zip(running, guesses):
                game["turns"][-1] |= {"guess": guess.text, "guess_repeated": repeated}
                game["replies"].append(guess)
                keyword, others = game["example"]["keyword"], game["example"].get("alternates")
                if correct(guess.text, keyword, others or self.world.alternates.get(keyword, ())):
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

    def strange(self, made, rng):
        """A question of the teacher's at random that was not made before, as a Reply."""
        new = [self.world.questions[q] for q in self.teacher.pool if self.world.questions[q] not in made]
        return Reply(new[rng.integers(len(new))] if new else made[-1])

    def rollout(self, examples, agent):
        """Plain games, for a reply that is replaced by a better one would be no sample of the model's,
        with up to --flips wrong answers, the same of all games about a keyword."""
        seeds = [[*agent.seed, zlib.crc32(example["keyword"].encode())] for example in examples]
        rates = [np.random.default_rng([*seed, 1]) for seed in seeds]
        rates = [rng.uniform(0, self.options.flips) * (rng.random() > 0.2) for rng in rates]
        episodes = self.play(examples, agent, None, rates, True, seeds)
        return [own.rewarded(episode, self.teacher, self.options.credit) for episode in episodes]

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
        """Play with a person, or show recorded games (games.twentyq.terminal); a scripted game where nobody
        is there (read is None). Returns the games played, as rows for --data and --replay."""
        from games.twentyq import terminal

        if self.options.replay:
            return terminal.replay(self, read_rows(self.options.replay, self.options.rows), read, show)
        if read is None:
            (episode,) = self.play(self.examples("test")[:1], self.equipped(agent))
            terminal.show_game(episode, show)
            return [record(episode)]
        if seat == "answerer":
            return terminal.model_answers(self, agent, read, show, seed)
        return terminal.model_asks(self, self.equipped(agent), read, show)

    def package(self, out, folder, format, settings):
        """Write a model as a player for Kaggle (games.twentyq.kaggle)."""
        from games.twentyq import kaggle

        self.equipped(None)  # which objects to a wrong flag now, not there
        kaggle.pack(out, folder, self.options, format, settings)

    # -------------------------------------------------------------------------------------------- collecting
    def attempt(self, examples, agent):
        """The games to collect, --n of each keyword: (place, record) when the last of a keyword has ended."""
        from games.twentyq import collect as teacher

        return teacher.collect(self, examples, agent)

    def collected(self, record):
        """The rows of a record, for --data or --belief."""
        if "rows" in record:
            return record["rows"]
        return [
            {name: value for name, value in game.items() if name != "dropped"}
            for game in record["games"]
            if game["rounds"]
        ]

    def tally(self, records):
        from games.twentyq import collect as teacher

        return teacher.tally(self, records)

    # -------------------------------------------------------------------------------------------- evaluation
    def equipped(self, agent):
        """The agent with the aids that the flags name (games.twentyq.aids)."""
        o = self.options
        if not (o.candidates or o.think or o.protocol or o.guesses != "model"):
            return agent
        from games.twentyq import aids

        return aids.equipped(self, agent)

    def evaluate(self, examples, agent):
        """Win rates by noise and their intervals, of the first noise by groups as well, plain greedy play,
        the answerer's accuracy, the table player."""
        if self.rivals:
            from games.twentyq.contest.tournament import tournament

            return tournament(self, examples)
        metrics, intervals, baselines, records, notes = {}, {}, {}, [], []
        player, belief = self.equipped(agent), Belief(self.world)
        answerer = player if self.options.answerer == "self" else self.answerer
        table = self.options.answerer == "table"
        for noise in self.noises:
            episodes = self.play(examples, player, answerer, noise)
            tag = f"@{noise:g}"
            summarise(episodes, belief, tag, metrics, intervals)
            records += [{"noise": noise, **record(episode)} for episode in episodes]
            if table:
                summarise(self.play(examples, self.table_player(), noise=noise), belief, tag, baselines, {})
            if noise == self.noises[0]:
                found = self.grouped(episodes)
                notes = [line for name, group in found.items() for line in lines_of(name, group)]
        if self.options.greedy:
            greedy = self.play(examples, player, answerer, self.noises[0], repeats=True)
            summarise(greedy, belief, f"_greedy@{self.noises[0]:g}", metrics, intervals)
        if table and hasattr(agent, "choose"):
            metrics |= self.answer_accuracy(agent, self.options.answers)
        return {
            "n": len(examples),
            "metrics": metrics,
            "intervals": intervals,
            "baselines": baselines,
            "groups": found,
            "notes": notes,
            "records": records,
        }

    def grouped(self, episodes):
        """Games by difficulty, by category and by whether the keyword was trained on: {name: groups}."""
        hard = self.world.difficulty() if not self.options.keywords else {}
        seen = {plain(word) for word in self.seen}
        trained = lambda example: "trained on" if plain(example["keyword"]) in seen else "not trained on"
        by = {
            "difficulty": lambda example: example.get("difficulty") or hard.get(example["keyword"], ""),
            "category": lambda example: (
                example.get("category") or self.world.kinds.get(example["keyword"], "")
            ),
            "keywords": trained if seen else lambda example: "",
        }
        return {name: groups(episodes, of) for name, of in by.items()}

    def answer_accuracy(self, agent, n):
        """The agent as answerer against the truth table: n cells drawn by the seed, half of them true."""
        if n < 2:
            return {}
        rng = np.random.default_rng([self.seed, 21])
        rates = []
        for truth in (True, False):
            cells = np.argwhere(self.world.chance > 0.5 if truth else self.world.chance < 0.5)
            cells = cells[rng.choice(len(cells), min(n // 2, len(cells)), replace=False)]
            prompts = [answer_prompt(self.world.keywords[k], self.world.questions[q]) for k, q in cells]
            says_yes = [yes > no for yes, no in agent.choose(prompts, ["yes", "no"])]
            rates.append(float(np.mean(np.array(says_yes) == truth)))
        return {"answerer_true": rates[0], "answerer_false": rates[1], "answerer_balanced": sum(rates) / 2}


def lines_of(name, groups):
    """The win rates of some groups of games as lines of text; small categories are in the report only."""
    shown = {part: x for part, x in groups.items() if name != "category" or x["n"] >= LEAST}
    for part, x in shown.items():
        low, high = x["interval"]
        yield f"{name + ' ' + part:28} {x['win_rate']:.3f} [{low:.3f}, {high:.3f}] of {x['n']}"
