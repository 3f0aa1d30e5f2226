"""Who plays: a Model has reply() and choose(); a game's own player may be an agent too (games.task)."""

import sampler


class Model:
    """A model as an agent. One seed a reply: (seed, call, row, sample)."""

    def __init__(self, model, tokenizer, max_new=32, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=0):
        self.model, self.tokenizer, self.max_new, self.seed = model, tokenizer, max_new, seed
        self.sampling = dict(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        self.session, self.calls = sampler.Session(model), 0

    def reply(self, conversations, n=1):
        """For each conversation n replies: samples, or at temperature 0 the n likeliest, best first."""
        prompts = [self.tokenizer.prompt(conversation) for conversation in conversations]
        stop = self.tokenizer.stop_ids
        self.calls += 1
        if n > 1 and self.sampling["temperature"] == 0:
            groups = sampler.n_best(self.model, prompts, n, self.max_new, stop, self.session)
        else:
            repeated = [prompt for prompt in prompts for _ in range(n)]
            seeds = [[self.seed, self.calls, i // n, i % n] for i in range(len(repeated))]
            session = self.session if n == 1 else None
            flat = sampler.generate(
                self.model, repeated, self.max_new, stop, seeds=seeds, session=session, **self.sampling
            )
            groups = [flat[i : i + n] for i in range(0, len(flat), n)]
        for reply in (reply for group in groups for reply in group):
            reply.text = self.tokenizer.decode(reply.ids)
        return groups

    def choose(self, conversations, choices):
        """Log-probability of each choice as the whole reply to each conversation: list of lists."""
        samples = [
            self.tokenizer.render([*conversation, {"role": "assistant", "content": choice}], "last")
            for conversation in conversations
            for choice in choices
        ]
        scores = sampler.score(self.model, samples)
        return [scores[i : i + len(choices)] for i in range(0, len(scores), len(choices))]
