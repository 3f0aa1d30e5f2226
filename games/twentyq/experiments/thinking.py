"""20 Questions: thinking aloud before each question and guess (--think)."""

from games.twentyq.prompts import read_prompt

THINK = "First think aloud: what do the answers so far rule out, and what is left? Do not ask or guess yet."
THEN = {"asker": "Now write only the next question.", "guesser": "Now write only the keyword."}


class Thinker:
    """An agent that thinks aloud before it asks or guesses. All conversations of a call together get at most
    this many seconds, so that the length of a match is known in advance."""

    def __init__(self, agent, seconds):
        self.agent = agent
        self.seconds = seconds

    def reply(self, conversations, n=1):
        seats = [read_prompt(conversation)[0] for conversation in conversations]
        if "answerer" in seats:  # a call is about one phase, so all of them answer
            return self.agent.reply(conversations, n)
        thinking = []
        for *before, last in conversations:
            thinking.append([*before, {"role": "user", "content": f"{last['content']}\n{THINK}"}])
        thoughts = self.agent.reply(thinking, seconds=self.seconds)

        prompts = []
        for conversation, (thought, *_), seat in zip(thinking, thoughts, seats):
            # a model that ran out of time may have said nothing
            thought = {"role": "assistant", "content": thought.text.strip() or "..."}
            prompts.append([*conversation, thought, {"role": "user", "content": THEN[seat]}])
        return self.agent.reply(prompts, n)
