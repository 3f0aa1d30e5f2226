"""20 Questions, thinking aloud before each question and guess (--think)."""

from games.twentyq.prompts import read_prompt

THINK = "First think aloud: what do the answers so far rule out, and what is left? Do not ask or guess yet."
THEN = {"asker": "Now write only the next question.", "guesser": "Now write only the keyword."}


class Thinker:
    """An agent that thinks aloud before it asks or guesses: for at most so many seconds over all
    conversations of a call, so that the length of a match is known beforehand."""

    def __init__(self, agent, seconds):
        self.agent, self.seconds = agent, seconds

    def reply(self, conversations, n=1):
        seats = [read_prompt(conversation)[0] for conversation in conversations]
        if "answerer" in seats:
            return self.agent.reply(conversations, n)
        thinking, asked = [], []
        for *before, last in conversations:
            thinking.append([*before, {"role": "user", "content": f"{last['content']}\n{THINK}"}])
        thoughts = self.agent.reply(thinking, seconds=self.seconds)
        for conversation, (thought, *_), seat in zip(thinking, thoughts, seats):
            said = {"role": "assistant", "content": thought.text.strip() or "..."}
            asked.append([*conversation, said, {"role": "user", "content": THEN[seat]}])
        return self.agent.reply(asked, n)
