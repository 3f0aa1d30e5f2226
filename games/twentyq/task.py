"""20 Questions: one player asks and guesses, the other answers about a keyword.

A round is ask, answer, guess; there are 20 (games.twentyq.match). A model plays every seat from the same
prompts in training and at play (games.twentyq.prompts): one sample per phase and round."""

import zlib
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from games.rows import read_rows
from games.task import (
    Chat,
    Episode,
    Evaluation,
    HasAgents,
    Interactive,
    Reply,
    Rollouts,
    SubmitsProgram,
    Task,
    TracksTraining,
    first,
    flag,
)
from games.twentyq import lessons, recorded
from games.twentyq.aids import Informed
from games.twentyq.collect import STRATEGIES, CollectsGames
from games.twentyq.figures import answer_accuracy, groups, lines_of, record, summarise, variety
from games.twentyq.match import Silent, match, play_matches
from games.twentyq.prompts import ANSWERER, ASKER, FIRST, GUESS, ROUNDS
from games.twentyq.world import POOL, Belief, TablePlayer, plain, read_keywords, world_of
from terminal import UsageError

PROTOCOLS = "alpha", "half", "false"  # players of the alphabet's protocol, over the table or KIND+AGENT


@dataclass
class Options:
    # world | train eval play collect submit
    world: str = flag("", as_trained=True)  # file of facts, or JSON lines of recorded answers; default: ours
    # training data | train collect rows
    held: float = flag(0.0, share=True)  # share of the keywords kept from training, of --data at least 0.05
    data: str = ""  # train on games {"keyword", "rounds": [[question, answer, guess]]}: file, folder, Hub
    rows: str = ""  # a slice of --data, such as 0:1000
    lost: bool = flag(False, cosmetic=True)  # learn from lost games too
    # training games | train
    flips: float = flag(0.3, share=True)  # games flip up to this share of the answers
    unsure: float = flag(0.1, share=True)  # share of games in which some answers are "unsure"
    explore: float = flag(0.15, share=True)  # share of questions asked at random: off the teacher's path
    shuffle: float = flag(0.8, share=True)  # share of games whose turns are taught in random order
    cells: int = 12  # answers about the keyword taught beside each game
    # games | train eval play collect submit
    noise: str = "0,0.05,0.1,0.2"  # shares of flipped answers to evaluate or collect at
    tries: int = 24  # beam search: replies of which the best new one is taken
    # evaluation | train eval
    keywords: str = ""  # evaluate on these: a word a line, rows with a keyword, or Kaggle's JSON
    answerer: str = flag("table", agent="reply", words=("table", "self"))  # table, self, run, model or URL
    greedy: bool = True  # evaluate plain greedy play, where repeats are allowed, as well
    answers: int = 4000  # cells of the table that the answerer is scored on, half of them true
    # aids at play | eval play submit collect
    candidates: int = 0  # best questions of which the one is asked that a belief learns most from
    belief: str = ""  # that belief: recorded answers, such as the model's own; by default the world
    guesses: Literal["model", "belief", "both"] = "model"  # who guesses
    protocol: Literal["", *PROTOCOLS] = ""  # half answers spelling by rule, alpha asks it too
    think: float = 0.0  # seconds for thinking aloud before each question and guess
    alpha_words: str = ""  # alpha: its words, one a line, how often after a tab; by default the world's
    alpha_control: bool = False  # alpha: test its partner first; pays where one in four only pretends
    # recorded games | play
    replay: str = ""  # show the games of this file, round by round, with the belief
    # tournament | eval
    against: list = flag((), agent="reply", plays="eval")  # table, random, runs, alpha+RUN, half+, false+RUN
    # collecting | collect
    wander: float = flag(0.0, share=True)  # own play: share of the questions that are asked at random
    teacher: str = flag(  # who plays: table, a run or model, or an endpoint (https://HOST/v1)
        "",
        agent="reply",
        plays="collect",
        endpoint={"model": "teacher_model", "workers": "workers", "price": "price"},
    )
    teacher_model: str = ""  # name of the model at the endpoint; the key is in PARLOR_KEY
    strategy: Literal[STRATEGIES] = "play"  # how games are made
    workers: int = flag(8, cosmetic=True)  # requests to the endpoint at a time
    price: str = flag("", cosmetic=True)  # of a million tokens at the endpoint, IN,OUT, for the sum


class TwentyQuestions(Rollouts, CollectsGames, TracksTraining, HasAgents, Interactive, SubmitsProgram, Task):
    Options = Options
    own_agents = ("table", "random", *PROTOCOLS)  # names that need no model

    def __init__(self, options=None, seed=0, kind=Chat):
        super().__init__(options, seed, kind)
        o = self.options
        self.noises = read_noises(o.noise)
        # a teacher reasons, and may write a whole game
        self.evaluation = Evaluation(max_new=512 if o.teacher else 24, varied=any(self.noises))
        self.world = world_of(o.world)
        self.teacher = Belief(self.world, POOL)
        self.games = self.read_games() if o.data else []

    # -------------------------------------------------------------------------------------------- training
    def examples(self, split):
        """Keywords of the world, or recorded games split by keyword; "test" is the world or --keywords."""
        order = np.random.default_rng([self.seed, 20]).permutation(self.world.keywords)
        words = [{"keyword": word} for word in order.tolist()]
        if split == "test":
            return self.known(read_keywords(self.options.keywords)) if self.options.keywords else words
        if self.options.data:
            every = round(1 / max(self.options.held, 0.05))
            held = set(sorted({row["keyword"] for row in self.games})[::every])
            return [row for row in self.games if (row["keyword"] in held) == (split == "valid")]
        held = round(self.options.held * len(words))
        return words[held:] if split == "train" else words[:held] or words

    def known(self, examples):
        """Those of the examples whose keyword the table knows, where it answers."""
        if self.options.answerer != "table":
            return examples
        known = [example for example in examples if plain(example["keyword"]) in self.world.keyword_index]
        if not known:
            raise ValueError(
                f"--keywords {self.options.keywords}: the table knows none of these {len(examples)}; take "
                "--answerer self or another player, or --world with recorded answers about them"
            )
        if missing := len(examples) - len(known):
            print(f"--keywords: {missing} of {len(examples)} left out, unknown to the table")
        return known

    def trained_on(self):
        return sorted({example["keyword"] for example in self.examples("train")})

    def tests_for(self, n, trained_on):
        """The first n test examples, what the model was not trained on before the others."""
        trained = {plain(word) for word in trained_on}
        return first(sorted(self.examples("test"), key=lambda test: plain(test["keyword"]) in trained), n)

    def read_games(self):
        """The games and comparisons of --data that the loss at hand learns from; the others are counted."""
        rows = read_rows(self.options.data, self.options.rows, ("keyword",))
        games = [game for where, row in rows if (game := recorded.read(self, where, row))]
        return recorded.usable(games, self.kind, self.options.lost, self.dropped)

    def words(self, example):
        """The keyword of an example and what else counts as it."""
        keyword = example["keyword"]
        return [keyword, *(example.get("alternates") or self.world.alternates.get(keyword, ()))]

    def items(self, example, rng):
        """What a recorded game or comparison teaches, or Chats for every phase and round of a fresh game by
        the teacher about the keyword."""
        if "turns" not in example:
            return lessons.from_teacher(self, example["keyword"], rng)
        if "chosen" not in example and self.kind is Chat:
            return lessons.imitate(example)
        from games.twentyq.experiments import preferences

        return preferences.items(example, self.kind)

    def texts(self):
        """All that is ever said in this world, for a tokenizer, often enough to become one token each."""
        fixed = [ASKER, FIRST, ANSWERER, "Keyword: ", "yes", "no", "unsure", f"\n{GUESS}"]
        return [text for text in fixed + self.world.questions + self.world.keywords for _ in range(4)]

    # -------------------------------------------------------------------------------------------- play

    def table_player(self):
        return TablePlayer(self.world)

    def agent_named(self, name, open_agent):
        """The table, a random player, or a player of the alphabet's protocol (contest/alpha.py) over the
        table, KIND, or over another agent, KIND+AGENT."""
        kind, _, inner = name.partition("+")
        if name == "table":
            return self.table_player()
        if kind not in PROTOCOLS and name != "random":
            return None
        from games.twentyq.contest import alpha

        return alpha.player(self, kind, open_agent(inner) if inner else self.table_player())

    def play(
        self, examples, player, answerer=None, noise=0.0, repeats=False, seeds=None, wander=0.0, full=False
    ):
        """Play one game per example in lock step, the player asking and guessing: list of Episodes.

        answerer: an agent, by default the truthful table. noise: share of answers flipped, of all games or of
        each, drawn from (seed, game, round) or from the seeds of each game. repeats=False: a question or
        guess already made in a game is replaced by the player's next best. wander: share of the questions
        that are replaced by random ones of the teacher's. full: nobody guesses; all games have 20 rounds."""
        episodes = [Episode(example, []) for example in examples]
        seeds = seeds or [[self.seed, i] for i in range(len(examples))]
        matches = []
        for episode, seed, share in zip(episodes, seeds, np.broadcast_to(noise, len(examples))):
            rng = np.random.default_rng(seed)
            flips = (rng.random(ROUNDS) < share).tolist()
            stray = partial(self.stray, rng.random(ROUNDS) < wander, rng)
            matches.append(match(episode, self.words(episode.example), flips, stray))
        guesser = Silent() if full else player
        seats = {"asker": player, "guesser": guesser, "answerer": answerer or self.table_player()}
        play_matches(matches, [seats] * len(matches), 1 if repeats else self.options.tries)
        return episodes

    def stray(self, wanders, rng, number, asked):
        """In rounds in which a game wanders a question of the teacher's at random that was not asked before,
        as a Reply."""
        if not wanders[number]:
            return None
        questions = [self.world.questions[q] for q in self.teacher.pool]
        new = [question for question in questions if question not in asked]
        return Reply(new[rng.integers(len(new))] if new else asked[-1])

    def rollout(self, examples, player):
        """Plain games, for a reply that is replaced by a better one would be no sample of the model's,
        with up to --flips wrong answers, the same of all games about a keyword."""
        from games.twentyq.experiments.own_games import reward_turns

        seeds = [[*player.seed, zlib.crc32(example["keyword"].encode())] for example in examples]
        rates = [np.random.default_rng([*seed, 1]) for seed in seeds]
        rates = [rng.uniform(0, self.options.flips) * (rng.random() > 0.2) for rng in rates]
        episodes = self.play(examples, player, None, rates, True, seeds)
        return [reward_turns(episode, self.teacher) for episode in episodes]

    def equipped(self, agent):
        """The agent with the aids that the flags name."""
        options = self.options
        if options.think:
            from games.twentyq.experiments.thinking import Thinker

            agent = Thinker(agent, options.think)
        if options.candidates or options.guesses != "model":
            world = world_of(options.belief) if options.belief else self.world
            # with the pool that the model has learned to ask from
            agent = Informed(agent, Belief(world, POOL), options.candidates, options.guesses)
        if options.protocol:
            from games.twentyq.contest import alpha

            agent = alpha.player(self, options.protocol, agent)
        return agent

    def needs_model(self):
        return not self.options.replay

    def interact(self, players, read, show, seat, seed):
        """Play with a person, or show recorded games (games.twentyq.terminal); a scripted game where nobody
        is there (read is None). Returns the games played, as rows for --data and --replay."""
        from games.twentyq import terminal

        player = players.player
        if self.options.replay:
            return terminal.replay(self, read_rows(self.options.replay, self.options.rows), read, show)
        if read is None:
            (episode,) = self.play(self.examples("test")[:1], self.equipped(player))
            terminal.show_game(episode, show)
            return [record(episode)]
        if seat == "answerer":
            return terminal.model_answers(self, player, read, show, seed)
        return terminal.model_asks(self, self.equipped(player), read, show)

    def package(self, out, folder, format, settings):
        """Write a model as a player for Kaggle (games.twentyq.kaggle)."""
        from games.twentyq import kaggle

        self.equipped(None)  # which objects to a wrong file now, not there
        kaggle.pack(out, folder, self.options, format, settings)

    # -------------------------------------------------------------------------------------------- evaluation
    def evaluate(self, examples, players):
        """Win rates by noise and their intervals, of the first noise by groups as well, how questions vary,
        plain greedy play, the answerer's accuracy, the table player; or a tournament, where --against names
        others."""
        if against := players.named.get("against"):
            from games.twentyq.contest.tournament import tournament

            return tournament(self, examples, against)
        metrics, intervals, baselines = {}, {}, {}
        records, grouping = [], None
        belief = Belief(self.world)
        player = self.equipped(players.player)
        answerer = player if self.options.answerer == "self" else players.named.get("answerer")
        by_table = self.options.answerer == "table"
        for noise in self.noises:
            episodes = self.play(examples, player, answerer, noise)
            grouping = grouping or groups(self, episodes, players.trained_on)
            records += [{"noise": noise, **record(episode)} for episode in episodes]
            summarise(episodes, belief, f"@{noise:g}", metrics, intervals)
            if by_table:
                baseline = self.play(examples, self.table_player(), noise=noise)
                summarise(baseline, belief, f"@{noise:g}", baselines, {})
        least = self.noises[0]
        metrics |= variety(self.play(examples, player, answerer, least, full=True))
        if by_table:
            baselines |= variety(self.play(examples, self.table_player(), noise=least, full=True))
        if self.options.greedy:
            greedy = self.play(examples, player, answerer, least, repeats=True)
            summarise(greedy, belief, f"_greedy@{least:g}", metrics, intervals)
        if by_table and hasattr(players.player, "choose"):
            metrics |= answer_accuracy(self.world, players.player, self.options.answers, self.seed)
        return {
            "n": len(examples),
            "metrics": metrics,
            "intervals": intervals,
            "baselines": baselines,
            "groups": grouping,
            "notes": list(lines_of(grouping)),
            "records": records,
        }


def read_noises(text):
    """The shares of flipped answers that --noise names."""
    try:
        noises = [float(share) for share in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--noise {text}: must be shares such as 0,0.1") from error
    if not all(0 <= share <= 1 for share in noises):
        raise UsageError(f"--noise {text}: a share lies between 0 and 1")
    return noises
