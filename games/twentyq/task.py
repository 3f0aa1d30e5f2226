"""20 Questions: one player asks and guesses, the other answers about a keyword.

A game has 20 rounds of question, answer and guess (games.twentyq.match). A model plays every seat, and reads
the same prompts in training and at play (games.twentyq.prompts): one sample per phase and round."""

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from games.rewards import Rewards, read_rewards
from games.rows import read_rows
from games.task import (
    Chat,
    Episode,
    Evaluation,
    HasAgents,
    Interactive,
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
from games.twentyq.figures import answer_accuracy, group_lines, groups, of_list, record, summarise, variety
from games.twentyq.match import Silent, match, play_matches
from games.twentyq.prompts import ANSWERER, ASKER, FIRST, GUESS, ROUNDS
from games.twentyq.world import POOL, Belief, TablePlayer, plain, read_keywords, world_of
from terminal import UsageError

PROTOCOLS = "alpha", "half", "false"  # players of contest/alpha.py, alone or as KIND+AGENT


@dataclass
class Options:
    # world | train eval play collect submit
    world: str = flag("", as_trained=True)  # a world file, or JSON lines of recorded answers; default: ours
    # training data | train collect rows
    held: float = flag(0.0, share=True)  # share of the keywords kept out of training; --data: 0.05 or more
    data: str = ""  # train on games {"keyword", "rounds": [[question, answer, guess]]}: file, folder, Hub
    rows: str = ""  # a slice of --data, such as 0:1000
    lost: bool = flag(False, cosmetic=True)  # learn from lost games too
    mix: bool = False  # --data: train on fresh games of the world as well
    # training games | train
    flips: float = flag(0.3, share=True)  # highest share of wrong answers in a game
    unsure: float = flag(0.1, share=True)  # share of games in which some answers are "unsure"
    explore: float = flag(0.15, share=True)  # share of questions asked at random instead of by the teacher
    shuffle: float = flag(0.8, share=True)  # share of games whose turns are taught in random order
    cells: int = 12  # answers about the keyword taught beside each game
    pool: int = flag(POOL, as_trained=True, least=1)  # separating questions that the teacher may ask
    # reinforcement | train
    rewards: str = flag("", code=True)  # FILE.py:FUNCTION:WEIGHT of a game's text, added to its reward
    # games | train eval play collect submit
    noise: str = "0,0.05,0.1,0.2"  # shares of flipped answers at which to evaluate or collect
    tries: int = 24  # beam search: replies among which the best new one is chosen
    # evaluation | train eval
    keywords: str = ""  # evaluate on these: a word a line, rows with a keyword, or Kaggle's JSON
    answerer: str = flag("table", agent="reply", words=("table", "self"))  # table, self, run, model or URL
    greedy: bool = True  # also evaluate plain greedy play, where repeats are allowed
    answers: int = 4000  # answers of the model to score against the table; half of the right ones are yes
    # aids at play | eval play submit collect
    candidates: int = 0  # ask the most informative of this many best questions, by a belief
    belief: str = ""  # world of that belief: recorded answers, such as the model's own; default: --world
    guesses: Literal["model", "belief", "both"] = "model"  # who guesses
    protocol: Literal["", *PROTOCOLS] = ""  # half: answer spelling questions by rule; alpha: ask them too
    think: float = 0.0  # seconds for thinking aloud before each question and guess
    alpha_words: str = ""  # alpha's words: one a line, a tab, its frequency; default: the world's keywords
    alpha_control: bool = False  # alpha tests its partner first; pays if one partner in four only pretends
    # recorded games | play
    replay: str = ""  # show the games in this file, round by round, with a belief
    # tournament | eval
    against: list = flag((), agent="reply", plays="eval")  # table, random, runs, alpha+RUN, half+, false+RUN
    # collecting | collect
    teacher: str = flag(  # who plays: table, a run or model, or an endpoint (https://HOST/v1)
        "",
        agent="reply",
        plays="collect",
        endpoint={"model": "teacher_model", "workers": "workers", "price": "price"},
    )
    teacher_model: str = ""  # name of the model at the endpoint; its key is read from PARLOR_KEY
    strategy: Literal[STRATEGIES] = "play"  # how to make games
    workers: int = flag(8, cosmetic=True)  # parallel requests to the endpoint
    price: str = flag("", cosmetic=True)  # the endpoint's price of a million tokens, IN,OUT, to show the cost


class TwentyQuestions(Rollouts, CollectsGames, TracksTraining, HasAgents, Interactive, SubmitsProgram, Task):
    Options = Options
    own_agents = ("table", "random", *PROTOCOLS)  # agents that need no model

    def __init__(self, options=None, seed=0, kind=Chat):
        super().__init__(options, seed, kind)
        o = self.options
        self.noises = read_noises(o.noise)
        # a teacher may reason, or write a whole game
        self.evaluation = Evaluation(max_new=512 if o.teacher else 24, varied=any(self.noises))
        self.rewards = read_rewards(o.rewards, ()) if o.rewards else Rewards()
        if o.mix and (kind is not Chat or not o.data):
            raise UsageError("--mix: needs --data and --loss sft")
        self.world = world_of(o.world)
        self.games = self.read_games() if o.data else []
        self.known = None  # (known keywords, all keywords) of --keywords, if the table answers

    # -------------------------------------------------------------------------------------------- training
    @cached_property  # only training needs it, and the pool of a large world takes seconds
    def teacher(self):
        return Belief(self.world, self.options.pool)

    def examples(self, split):
        """Keywords of the world, or the games of --data, split by keyword. The test examples are always the
        keywords of the world or of --keywords."""
        order = np.random.default_rng([self.seed, 20]).permutation(self.world.keywords)
        words = [{"keyword": word} for word in order.tolist()]
        if split == "test":
            return self.listed() if self.options.keywords else words
        if self.options.data:
            step = round(1 / max(self.options.held, 0.05))
            held = set(sorted({row["keyword"] for row in self.games})[::step])
            games = [row for row in self.games if (row["keyword"] in held) == (split == "valid")]
            if not self.options.mix or split == "valid":
                return games
            return games + [word for word in words if word["keyword"] not in held]
        held = round(self.options.held * len(words))
        return words[held:] if split == "train" else words[:held] or words

    def listed(self):
        """The examples of --keywords whose keyword the answerer knows: all of them, unless the table
        answers."""
        examples = read_keywords(self.options.keywords)
        for example in examples:
            example["keyword"] = self.world.spelling(example["keyword"])
        if self.options.answerer != "table":
            return examples
        known = [example for example in examples if plain(example["keyword"]) in self.world.keyword_index]
        if not known:
            raise ValueError(
                f"--keywords {self.options.keywords}: the table knows none of these {len(examples)} "
                "keywords; use --answerer self or another agent, or a --world that has answers about them"
            )
        if missing := len(examples) - len(known):
            fate = "are left out" if self.options.against else "count as lost"
            print(f"--keywords: {missing} of {len(examples)} {fate}: the table does not know them")
        self.known = len(known), len(examples)
        return known

    def trained_on(self):
        return sorted({example["keyword"] for example in self.examples("train")})

    def tests_for(self, n, trained_on):
        """The first n test examples, ordered so that keywords that the model was not trained on come
        first."""
        trained = {plain(word) for word in trained_on}
        tests = sorted(self.examples("test"), key=lambda test: plain(test["keyword"]) in trained)
        return first(tests, n)

    def read_games(self):
        """The games and comparisons of --data from which the loss learns; self.dropped counts the others."""
        games = []
        for where, row in read_rows(self.options.data, self.options.rows, ("keyword",)):
            if game := recorded.read(self, where, row):
                games.append(game)
        return recorded.select(games, self.kind, self.options.lost, self.dropped)

    def words(self, example):
        """The keyword of an example and its alternates: all words that count as a correct guess."""
        keyword = example["keyword"]
        return [keyword, *(example.get("alternates") or self.world.alternates.get(keyword, ()))]

    def items(self, example, rng):
        """The lessons of a recorded game or comparison, or of a fresh game of the teacher about the
        keyword."""
        if "turns" not in example:
            return lessons.from_teacher(self, example["keyword"], rng)
        if "chosen" not in example and self.kind is Chat:
            return lessons.imitate(example)
        from games.twentyq.experiments import preferences

        return preferences.items(example, self.kind)

    def texts(self):
        """Every text of this world, for a tokenizer. Each is there often enough to become one token."""
        fixed = [ASKER, FIRST, ANSWERER, "Keyword: ", "yes", "no", "unsure", f"\n{GUESS}"]
        return (fixed + self.world.questions + self.world.keywords) * 4  # data.OFTEN

    # -------------------------------------------------------------------------------------------- play
    def table_player(self):
        return TablePlayer(self.world)

    def agent_named(self, name, open_agent):
        """The table, a random player, or a player of the alphabet's protocol (contest/alpha.py): KIND plays
        over the table, KIND+AGENT over another agent."""
        kind, _, inner = name.partition("+")
        if name == "table":
            return self.table_player()
        if kind not in PROTOCOLS and name != "random":
            return None
        from games.twentyq.contest import alpha

        return alpha.player(self, kind, open_agent(inner) if inner else self.table_player())

    def play(self, examples, player, answerer=None, noise=0.0, repeats=False, seeds=None, full=False):
        """Play one game per example in lock step; the player asks and guesses. Returns the Episodes.

        answerer: an agent; by default the truthful table. noise: share of flipped answers, one for all games
        or one for each. seeds: one for each game, which decides the flips; by default (seed, index of the
        game). repeats=False: a question or guess that the game already had is replaced by the player's
        next best. full: nobody guesses, so every game has 20 rounds."""
        seeds = seeds or [[self.seed, i] for i in range(len(examples))]
        episodes = []
        matches = []
        for example, seed, share in zip(examples, seeds, np.broadcast_to(noise, len(examples))):
            rng = np.random.default_rng(seed)
            # all flips are drawn at once, so they do not depend on how long the game is
            flips = (rng.random(ROUNDS) < share).tolist()
            episodes.append(Episode(example, []))
            matches.append(match(episodes[-1], self.words(example), flips))
        guesser = Silent() if full else player
        seats = {"asker": player, "guesser": guesser, "answerer": answerer or self.table_player()}
        play_matches(matches, [seats] * len(matches), 1 if repeats else self.options.tries)
        return episodes

    def rollout(self, examples, player):
        """Plain games with up to --flips wrong answers.

        Repeats stay: a reply that was replaced would not be a sample of the model. All games about a keyword
        have the same flips, so that only the model's choices make their rewards differ."""
        from games.twentyq.experiments.own_games import reward_turns

        seeds = [[*player.seed, zlib.crc32(example["keyword"].encode())] for example in examples]
        rates = []
        for seed in seeds:
            rng = np.random.default_rng([*seed, 1])
            rate = rng.uniform(0, self.options.flips)
            rates.append(rate * (rng.random() > 0.2))  # a fifth of the keywords has no wrong answers
        episodes = self.play(examples, player, None, rates, True, seeds)
        for episode in episodes:
            reward_turns(episode, self.teacher)
            lines = [f"{turn['question']} {turn['answer']} {turn['guess']}" for turn in episode.turns]
            own = self.rewards.own(episode.example, "\n".join(lines))
            more = sum(self.rewards.weights[name] * value for name, value in own.items())
            episode.reward += more
            episode.credits = [credit + more for credit in episode.credits]
            episode.scores |= own
        return episodes

    def equipped(self, agent):
        """The agent with the aids that the flags ask for."""
        options = self.options
        if options.think:
            from games.twentyq.experiments.thinking import Thinker

            agent = Thinker(agent, options.think)
        if options.candidates or options.guesses != "model":
            world = world_of(options.belief) if options.belief else self.world
            # the pool of the questions that the model has learned to ask
            agent = Informed(agent, Belief(world, options.pool), options.candidates, options.guesses)
        if options.protocol:
            from games.twentyq.contest import alpha

            agent = alpha.player(self, options.protocol, agent)  # outermost: it hides its turns from the rest
        return agent

    def needs_model(self):
        return not self.options.replay

    def interact(self, players, read, show, seat, seed):
        """Play with a person, or show recorded games (games.twentyq.terminal). Without a person (read is
        None) it shows one game against the table. Returns the games as rows for --data and --replay."""
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
        """Write the model as a player for Kaggle (games.twentyq.kaggle)."""
        from games.twentyq import kaggle

        self.equipped(None)  # reads the files of the flags, so that an error shows now and not on Kaggle
        kaggle.pack(out, folder, self.options, format, settings)

    # -------------------------------------------------------------------------------------------- evaluation
    def evaluate(self, examples, players):
        """Win rates with intervals at each noise, and by group at the first one; the variety of the
        questions; plain greedy play; the accuracy as answerer; the table player as baseline. With --against,
        a tournament instead."""
        if against := players.named.get("against"):
            from games.twentyq.contest.tournament import tournament

            return tournament(self, examples, against)
        metrics = {}
        intervals = {}
        baselines = {}
        records = []
        grouping = None
        belief = Belief(self.world)
        player = self.equipped(players.player)
        answerer = player if self.options.answerer == "self" else players.named.get("answerer")
        by_table = self.options.answerer == "table"  # only then is the table player a fair baseline
        least = self.noises[0]
        for noise in self.noises:
            episodes = self.play(examples, player, answerer, noise)
            grouping = grouping or groups(self, episodes, players.trained_on)
            records += [{"noise": noise, **record(episode)} for episode in episodes]
            summarise(episodes, belief, f"@{noise:g}", metrics, intervals)
            if self.known:
                of_list(episodes, *self.known, f"@{noise:g}", metrics, intervals)
            if by_table:
                baseline = self.play(examples, self.table_player(), noise=noise)
                summarise(baseline, belief, f"@{noise:g}", baselines, {})

            if noise == least:  # before the other noises, so that the short table after training shows it
                metrics |= variety(self.play(examples, player, answerer, least, full=True))
                if by_table:
                    baselines |= variety(self.play(examples, self.table_player(), noise=least, full=True))

        # the rest at the first noise only
        if self.options.greedy:
            greedy = self.play(examples, player, answerer, least, repeats=True)
            summarise(greedy, belief, f"_greedy@{least:g}", metrics, intervals)
        if by_table and hasattr(players.player, "choose"):
            accuracy = answer_accuracy(self.world, players.player, self.options.answers, self.seed)
            metrics |= accuracy[0]
            intervals |= accuracy[1]
        return {
            "n": len(examples),
            "metrics": metrics,
            "intervals": intervals,
            "baselines": baselines,
            "groups": grouping,
            "notes": list(group_lines(grouping)),
            "records": records,
        }


def read_noises(text):
    """The list of shares in --noise."""
    try:
        noises = [float(share) for share in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--noise {text}: must be a list of shares such as 0,0.1") from error
    if not all(0 <= share <= 1 for share in noises):
        raise UsageError(f"--noise {text}: a share must be between 0 and 1")
    return noises
