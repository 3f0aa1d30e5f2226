"""20 Questions, aids at play, each a flag and each an agent around an agent: a belief that picks among the
model's questions and guesses (--candidates, --guesses, --belief), thinking aloud first (--think); and the
protocol of games.twentyq.contest.alpha (--protocol)."""

import math

from games.task import Reply
from games.twentyq.prompts import answer_prompt
from games.twentyq.world import Belief, world_of

THINK = "First think aloud: what do the answers so far rule out, and what is left? Do not ask or guess yet."
ASK = "Now write only the next question."
GUESS = "Now write only the keyword."


def equipped(task, agent):
    """The agent with the aids that the task's flags ask for. Raises ValueError for an unknown one."""
    o = task.options
    for name, known in (("guesses", ("model", "belief", "both")), ("protocol", ("", *task.wrappers))):
        if getattr(o, name) not in known:
            raise ValueError(f"--{name} {getattr(o, name)}: must be {' or '.join(filter(None, known))}")
    if o.think:
        agent = Thinker(task, agent, o.think)
    if o.candidates or o.guesses != "model":
        world = world_of(o.belief) if o.belief else task.world
        # with the pool and the opening that the model has learned to ask from: others lose it its way
        agent = Informed(task, agent, Belief(world, o.pool, o.opening), o.candidates, o.guesses)
    return task.wrappers[o.protocol](agent) if o.protocol else agent


class Informed:
    """An agent whose k best questions are put in order by the bits that a belief expects of them, and whose
    guesses are the belief's, or its own and the belief's: by the product of both chances."""

    def __init__(self, task, agent, belief, k, guesses):
        self.task, self.agent, self.belief, self.k, self.guesses = task, agent, belief, max(1, k), guesses

    def reply(self, conversations, n=1):
        seats = [self.task.read(conversation) for conversation in conversations]
        own = [seat == "guesser" and self.guesses == "belief" for seat, _ in seats]
        asked = [talk for talk, alone in zip(conversations, own) if not alone]
        answers = iter(self.agent.reply(asked, max(n, self.k)) if asked else [])
        return [
            self.ordered(seat, turns, None if alone else next(answers), n)
            for (seat, turns), alone in zip(seats, own)
        ]

    def ordered(self, seat, turns, replies, n):
        if seat == "answerer":
            return replies[:n]
        belief = self.belief.after(turns)
        if replies is None:
            return [Reply(belief.world.keywords[k]) for k in belief.guesses(n)]
        texts = [reply.text.strip() for reply in replies]
        if seat == "asker":
            worth = belief.worth_of(texts[: self.k])
        elif self.guesses == "both":
            worth = [odds + r.logp for odds, r in zip(belief.odds_of(texts[: self.k]), replies)]
        else:
            return replies[:n]
        order = sorted(range(len(worth)), key=lambda i: -worth[i])  # equals stay as the model has them
        return ([replies[i] for i in order] + replies[self.k :])[:n]


class Thinker:
    """An agent that thinks aloud before it asks or guesses: for at most so many seconds over all
    conversations of a call, so that the length of a match is known beforehand."""

    def __init__(self, task, agent, seconds):
        self.task, self.agent, self.seconds = task, agent, seconds

    def reply(self, conversations, n=1):
        seats = [self.task.read(talk)[0] for talk in conversations]
        if "answerer" in seats:
            return self.agent.reply(conversations, n)
        first = [said(talk, THINK) for talk in conversations]
        thoughts = self.agent.reply(first, seconds=self.seconds)
        then = [
            [*talk, {"role": "assistant", "content": thought.text.strip() or "..."}, user(what)]
            for talk, (thought, *_), what in zip(
                first, thoughts, (ASK if seat == "asker" else GUESS for seat in seats)
            )
        ]
        return self.agent.reply(then, n)


def user(text):
    return {"role": "user", "content": text}


def said(conversation, text):
    """A conversation whose last turn says this as well."""
    *before, last = conversation
    return [*before, user(f"{last['content']}\n{text}")]


def facts(task, agent, example):
    """The row of a keyword for --belief or --world (twentyq_table.Recorded): the share that an agent, as
    answerer, gives to yes for every question of the world."""
    prompts = [answer_prompt(example["keyword"], question) for question in task.world.questions]
    shares = [1 / (1 + math.exp(min(no - yes, 700))) for yes, no in agent.choose(prompts, ["yes", "no"])]
    answers = {q: [round(p, 4), round(1 - p, 4)] for q, p in zip(task.world.questions, shares)}
    about = {"category": example["category"]} if example.get("category") else {}
    return {"keyword": example["keyword"], "answers": answers, **about}
