"""One match of 20 Questions, and many played side by side.

`match` is a whole game, to be read from top to bottom. It is a generator: it yields a Request, says nothing
itself, and is sent the reply. `lock_step` advances many such generators together, so that a model reads all
their prompts in one batch; `play_matches` does so with an agent in each seat."""

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
    """What a match needs next: the seat to speak, its conversation, and what it said before in this match."""

    seat: str  # asker | answerer | guesser
    prompt: list
    before: list = ()


def match(episode, words, flips, wander=None, decided=None):
    """Play one match about episode.example and fill in the Episode. Yields a Request, is sent (Reply, whether
    it repeats), and returns whether it was won.

    words: guesses that are right; flips: for each round whether its answer is turned into its opposite;
    wander(number, asked): a Reply that replaces the question of a round, or None; decided(keyword, question):
    the answer where a rule decides it, which is never flipped."""
    keyword = episode.example["keyword"]
    episode.reward = -1  # the environment's, without a win
    turns, guesses = [], []
    for number in range(ROUNDS):
        asked = [question for question, _ in turns]
        question, repeated = yield Request("asker", ask_prompt(turns), asked)
        stray = wander(number, asked) if wander else None
        if stray:
            question, repeated = stray, False

        answer, _ = yield Request("answerer", answer_prompt(keyword, question.text))
        answer = yes_or_no(answer.text) or "no"
        flipped = flips[number] and not (decided and decided(keyword, question.text))
        if flipped:
            answer = "no" if answer == "yes" else "yes"
        turns.append((question.text, answer))

        guess, _ = yield Request("guesser", guess_prompt(turns), guesses)
        guesses.append(guess.text)
        episode.replies += [question, guess]
        turn = {"question": question.text, "answer": answer, "guess": guess.text}
        marks = {"flipped": flipped, "repeated": repeated, "wandered": stray is not None}
        episode.turns.append(turn | marks)
        if correct(guess.text, *words):
            episode.reward = ROUNDS - number  # 20 for a win in the first round, 1 in the last
            return True
    return False


def best_new(agent, requests, tries):
    """What an agent says to each request, cut to its last line and the limit of its seat, and whether it said
    that before: the best of its first `tries` replies that is new, or the best. List of (Reply, bool)."""
    chosen = [(Reply(""), True)] * len(requests)
    places = list(range(len(requests)))
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
        # an empty reply means that the model does not end its replies: looking further is no use
        places = [place for place in places if chosen[place][1] and chosen[place][0].text]
        if not places:
            break
    return chosen


def lock_step(games, speak, together=1):
    """Advance generators side by side and yield (place, what it returned) of each that ends.

    speak(waiting) gives a reply to each of {place: what the generator yielded}, in their order. So many games
    in a row, `together`, are about one thing: all of them end where one returns something true."""
    waiting = {place: next(game) for place, game in enumerate(games)}
    while waiting:
        over = set()
        for place, reply in zip(list(waiting), speak(waiting)):
            try:
                waiting[place] = games[place].send(reply)
            except StopIteration as end:
                del waiting[place]
                if end.value:
                    over.add(place // together)
                yield place, end.value
        waiting = {place: wanted for place, wanted in waiting.items() if place // together not in over}


def play_matches(matches, seats, tries, together=1):
    """Play matches to their end. seats: for each match {"asker", "answerer", "guesser"}: an agent. An agent
    gets all its prompts of a phase in one call."""

    def speak(waiting):
        places_of = {}  # agent -> where it is to speak
        for place, request in waiting.items():
            places_of.setdefault(seats[place][request.seat], []).append(place)
        replies = {}
        for agent, places in places_of.items():
            requests = [waiting[place] for place in places]
            if requests[0].seat == "answerer":
                found = [(best, False) for best, *_ in agent.reply([each.prompt for each in requests])]
            else:
                found = best_new(agent, requests, tries)
            replies.update(zip(places, found))
        return [replies[place] for place in waiting]

    for _ in lock_step(matches, speak, together):
        pass


# ------------------------------------------------------------------------------------------------ players
class Silent:
    """An agent that says nothing."""

    def reply(self, conversations, n=1):
        return [[Reply("")] for _ in conversations]


class Around:
    """An agent around another, to which it hands what it does not say itself."""

    least = 1  # replies that it asks the other for

    def __init__(self, agent):
        self.agent = agent

    def reply(self, conversations, n=1):
        seats = [read_prompt(conversation) for conversation in conversations]
        own = [self.own(*seat, n) for seat in seats]
        silent = [place for place, texts in enumerate(own) if not texts]
        handed = [self.handed(*seats[place], conversations[place]) for place in silent]
        replies = iter(self.agent.reply(handed, max(n, self.least)) if handed else ())
        return [
            [Reply(text) for text in texts] if texts else self.order(*seat, next(replies))[:n]
            for seat, texts in zip(seats, own)
        ]

    def own(self, seat, content, n):
        """What it says itself in a seat (prompts.read_prompt), best first, or nothing."""
        return []

    def handed(self, seat, content, conversation):
        """The conversation that the other gets."""
        return conversation

    def order(self, seat, content, replies):
        """The other's replies as it takes them, best first."""
        return replies
