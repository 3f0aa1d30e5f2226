"""20 Questions, a belief as an aid at play: it picks among a model's questions and guesses (--candidates,
--guesses, --belief)."""

from games.twentyq.match import Around


class Informed(Around):
    """An agent whose k best questions are put in order by the bits that a belief expects of them, and whose
    guesses are the belief's, or its own and the belief's: by the product of both chances."""

    def __init__(self, agent, belief, k, guesses):
        super().__init__(agent)
        self.belief, self.guesses = belief, guesses
        self.least = max(1, k)

    def own(self, seat, content, n):
        if seat != "guesser" or self.guesses != "belief":
            return []
        return [self.belief.world.keywords[k] for k in self.belief.after(content).guesses(n)]

    def order(self, seat, content, replies):
        best, rest = replies[: self.least], replies[self.least :]
        texts = [reply.text.strip() for reply in best]
        if seat == "asker":
            worth = self.belief.after(content).worth_of(texts)
        elif seat == "guesser" and self.guesses == "both":
            odds = self.belief.after(content).odds_of(texts)
            worth = [chance + reply.logp for chance, reply in zip(odds, best)]
        else:
            return replies
        order = sorted(range(len(best)), key=lambda i: -worth[i])  # equals stay as the model has them
        return [best[i] for i in order] + rest
