"""One match of 20 Questions, and many matches played side by side.

`match` is a whole game; read it from top to bottom. It is a generator: it yields a Request and is sent the
reply, so it needs no agent. `lock_step` advances many such generators together, so that a model reads all
their prompts in one batch. `play_matches` does so with an agent in each seat."""

from dataclasses import dataclass, replace

from games.task import Reply
from games.twentyq.prompts import (
    MAX_GUESS,
    MAX_QUESTION,
    ROUNDS,
    answer_prompt,
    ask_prompt,
    correct,
    guess_prompt,
    last_line,
    read_prompt,
    yes_or_no,
)
from games.twentyq.world import plain

LIMITS = {"asker": MAX_QUESTION, "guesser": MAX_GUESS}  # characters


@dataclass
class Request:
    """The next reply that a match needs: the seat, its conversation, and the seat's earlier replies in this
    match."""

    seat: str  # asker | answerer | guesser
    prompt: list
    before: list = ()


def match(episode, words, flips, rule=None):
    """Play one match about episode.example and fill in the Episode. Yields Requests, is sent (Reply, whether
    it repeats an earlier one), and returns whether the match was won.

    words: the correct guesses. flips: for each round whether its answer is inverted. rule(keyword, question):
    the answer if a rule decides it, else None; such an answer is never flipped."""
    keyword = episode.example["keyword"]
    episode.reward = -1  # the environment's reward without a win
    turns = []
    guesses = []
    for number in range(ROUNDS):
        asked = [question for question, _ in turns]
        question, repeated = yield Request("asker", ask_prompt(turns), asked)
        answer, _ = yield Request("answerer", answer_prompt(keyword, question.text))
        answer = yes_or_no(answer.text) or "no"
        flipped = flips[number] and not (rule and rule(keyword, question.text))
        if flipped:
            answer = "no" if answer == "yes" else "yes"
        turns.append((question.text, answer))

        guess, _ = yield Request("guesser", guess_prompt(turns), guesses)
        guesses.append(guess.text)
        episode.replies += [question, guess]
        turn = {"question": question.text, "answer": answer, "guess": guess.text}
        episode.turns.append(turn | {"flipped": flipped, "repeated": repeated})
        if correct(guess.text, *words):
            episode.reward = ROUNDS - number  # 20 for a win in the first round, 1 in the last
            return True
    return False


def best_new_replies(agent, requests, tries):
    """The agent's reply to each request: the best of its first `tries` replies that is new in the match, or
    its best reply if none is new. List of (Reply, whether it repeats an earlier one).

    A reply is cut to its last line and to the limit of its seat."""
    chosen = [(Reply(""), True)] * len(requests)
    places = range(len(requests))
    # most first replies are new, so only the other requests pay for a wider beam
    for n in sorted({1, min(6, tries), tries} - {0}):
        groups = agent.reply([requests[place].prompt for place in places], n)
        for place, replies in zip(places, groups):
            request = requests[place]
            before = set(map(plain, request.before))
            limit = LIMITS[request.seat]
            cut = [replace(reply, text=last_line(reply.text)[:limit]) for reply in replies]
            new = [reply for reply in cut if reply.text and plain(reply.text) not in before]
            if cut:
                chosen[place] = (new or cut)[0], not new
        # an empty reply means that the model does not end its replies, and a wider beam does not help
        places = [place for place in places if chosen[place][1] and chosen[place][0].text]
        if not places:
            break
    return chosen


def lock_step(games, speak, together=1):
    """Advance generators side by side, and yield (place, returned value) for each one that ends.

    speak(waiting) gets {place: what the generator yielded} and returns a reply to each, in this order. Every
    `together` generators in a row form a group, which ends as soon as one of them returns a true value."""
    waiting = {place: next(game) for place, game in enumerate(games)}
    while waiting:
        over = set()  # groups that end in this step
        for place, reply in zip(list(waiting), speak(waiting)):
            try:
                waiting[place] = games[place].send(reply)
            except StopIteration as end:
                del waiting[place]
                if end.value:
                    over.add(place // together)
                yield place, end.value
        # only now, so that two games of a group can end in the same step
        for place in list(waiting):
            if place // together in over:
                del waiting[place]


def play_matches(matches, seats, tries, together=1):
    """Play matches to their end. seats: for each match {"asker", "answerer", "guesser"}: an agent. An agent
    gets all its prompts of a phase in one call."""

    def speak(waiting):
        places_of = {}  # agent -> places where it must reply
        for place, request in waiting.items():
            places_of.setdefault(seats[place][request.seat], []).append(place)
        replies = {}
        for agent, places in places_of.items():
            requests = [waiting[place] for place in places]
            # in lock step all matches are in the same phase; an answer may repeat an earlier one
            if requests[0].seat == "answerer":
                groups = agent.reply([request.prompt for request in requests])
                chosen = [(best, False) for best, *_ in groups]
            else:
                chosen = best_new_replies(agent, requests, tries)
            replies.update(zip(places, chosen))
        return [replies[place] for place in waiting]

    for _ in lock_step(matches, speak, together):
        pass


# ------------------------------------------------------------------------------------------------ players
class Silent:
    """An agent that says nothing."""

    def reply(self, conversations, n=1):
        return [[Reply("")] for _ in conversations]


class AgentWrapper:
    """An agent around an inner agent. Subclasses reply themselves (own_texts), change what the inner agent
    reads (inner_prompt), or reorder its replies (reorder)."""

    min_replies = 1  # number of replies to request from the inner agent, at least

    def __init__(self, agent):
        self.agent = agent

    def reply(self, conversations, n=1):
        seats = [read_prompt(conversation) for conversation in conversations]
        own = [self.own_texts(*seat, n) for seat in seats]
        prompts = []  # all in one call, so that a model reads them as one batch
        for seat, texts, conversation in zip(seats, own, conversations):
            if not texts:
                prompts.append(self.inner_prompt(*seat, conversation))
        inner = iter(self.agent.reply(prompts, max(n, self.min_replies)) if prompts else ())
        groups = []
        for seat, texts in zip(seats, own):
            groups.append(list(map(Reply, texts)) if texts else self.reorder(*seat, next(inner))[:n])
        return groups

    def own_texts(self, seat, content, n):
        """The wrapper's own replies, best first, or an empty list to leave the reply to the inner agent. seat
        and content as in prompts.read_prompt."""
        return []

    def inner_prompt(self, seat, content, conversation):
        """The conversation that the inner agent reads."""
        return conversation

    def reorder(self, seat, content, replies):
        """The inner agent's replies, best first."""
        return replies
