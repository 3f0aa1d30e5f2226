"""20 Questions: a belief helps a model at play. It chooses among the model's questions and guesses
(--candidates, --guesses, --belief)."""

from games.twentyq.match import AgentWrapper


class Informed(AgentWrapper):
    """An agent whose k best questions are ranked by the information that a belief expects from them.

    guesses: "model" leaves the guesses to the agent, "belief" takes those of the belief, and "both" ranks the
    agent's guesses by the product of the two chances."""

    def __init__(self, agent, belief, k, guesses):
        super().__init__(agent)
        self.belief = belief
        self.guesses = guesses
        self.min_replies = max(1, k)

    def own_texts(self, seat, content, n):
        if seat != "guesser" or self.guesses != "belief":
            return []
        return [self.belief.world.keywords[k] for k in self.belief.after(content).guesses(n)]

    def reorder(self, seat, content, replies):
        # a caller may want more replies than the belief ranks; they keep their order behind the ranked ones
        best = replies[: self.min_replies]
        texts = [reply.text.strip() for reply in best]
        if seat == "asker":
            worth = self.belief.after(content).worth_of(texts)
        elif seat == "guesser" and self.guesses == "both":
            logs = self.belief.after(content).log_chances(texts)
            # logarithms add up to that of the product
            worth = [log + reply.logp for log, reply in zip(logs, best)]
        else:
            return replies
        order = sorted(range(len(best)), key=lambda i: -worth[i])  # ties stay in the model's order
        return [best[i] for i in order] + replies[self.min_replies :]
