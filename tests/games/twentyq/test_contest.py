"""Agent Alpha: answers by rule, bisection, and what it does with partners who are none."""

import math
import re
import string

import numpy as np
import pytest

from games.twentyq.contest.alpha import Alpha, Ruled, read_words, semantic
from games.twentyq.contest.rules import HANDSHAKE, PRECEDES, RULES, answer_by_rule
from games.twentyq.prompts import answer_prompt, ask_prompt, guess_prompt, read_prompt
from games.twentyq.task import Options, TwentyQuestions
from tests.games.twentyq.help_twentyq import Ranked

EXAMPLES = {  # of each rule: a keyword of which it is true, one of which it is not
    HANDSHAKE: ("melon", None),
    "Does the last word of the keyword start with m?": ("bread mould", "mint tea"),
    PRECEDES.format("melon"): ("ice cream", "melon"),
    'Is "melon" before the keyword in alphabetical order?': ("melons", "melo"),
    "Does it start and end with the same letter?": ("Eye", "eyes"),
    "Does the keyword begin with one of the letters a, m or z?": ("Zebra", "ham"),
    'Does the keyword start with "me"?': ("melon", "mule"),
    "Does it end with a vowel?": ("apple", "apples"),
    'Does the keyword end with the letters "on"?': ("melon", "oak"),
    "Is the first letter of the keyword between a and m?": ("melon", "nut"),
    'Is its second letter "e"?': ("melon", "lime"),
    "Does it have an e as its third letter?": ("tree", "melon"),
    "Does it have more than five letters?": ("ice cream", "X-ray s"),
    "Is the keyword between 5 and 8 letters long?": ("ice cream", "bulldozer"),
    "Is the keyword made of several words?": ("ice cream", "melon"),
    "Does the keyword have an even number of letters?": ("ice cream", "melon"),
    "Does the keyword contain a double letter?": ("apple", "papa"),
    "Does the keyword have any letter more than once?": ("papa", "melon"),
    "Does the keyword contain the letter e more than once?": ("eye", "melon"),
    "Does the keyword contain a hyphen?": ("x-ray", "x ray"),
    'Does the keyword contain the letter "e"?': ("melon", "oak"),
    'Does it contain the word "lemon"?': ("lemonade", "melon"),
    "Is the keyword one of the following: apple, melon, pear?": ("Melon", "lemon"),
    'Is the keyword "melon"?': ("melon", "melons"),
}
# other ways to ask, with the answer for "melon"
YES = ["Does the keyword start with the letter 'm'?"]
YES += ["Does it start with a letter in the first half of the alphabet?"]
YES += ["Does the keyword begin with a letter that comes before n in the alphabet?"]
YES += ["Does the keyword start with a consonant?", "Is it a single word?"]
YES += ["Does it have 5 or more letters?", "Does it have 5 or fewer letters?"]
YES += ["Is it shorter than six letters?", "Does the keyword have exactly two vowels?"]
YES += ["Does it contain any of these letters: m, z?", "Is there an “e” in the keyword?"]
YES += ['Does the keyword come after "car" in alphabetical order?']
YES += ['In alphabetical order, does the keyword come before the word "Zebra"?']
YES += ['Does the keyword come alphabetically before "mint"?']
NO = ["Does it begin with a, b, or c?", "Is the keyword's first letter a vowel?"]
NO += ['Does the first letter of the keyword come after "m" in the alphabet?', "Is it a two-word term?"]
NO += ["Is the keyword no more than 4 letters long?", "Does it have at least 6 letters?"]
NO += ["Does it contain the letters m and z?"]
NO += ['Does it end with a letter that comes before "m" in the alphabet?']
SEMANTIC = (
    "Does it have a tail? Does it start with a bang? Does it have two legs? Is it a word? Does it contain "
    "water? Can it be described in one word? Does it come before lunch? Is it one of the largest animals? "
    "Does it end in a point? Is it used to write letters? Does it have letters on it? Is it in the air?"
)


def named(task, name):
    """One of the game's own agents."""
    return task.agent_named(name, lambda inner: named(task, inner))


def rounds_of(episodes):
    return [len(episode.turns) if episode.reward > 0 else None for episode in episodes]


def questions_of(episode):
    return [turn["question"] for turn in episode.turns]


def asks(agent, turns):
    return agent.reply([ask_prompt(turns)])[0][0].text


def guesses(agent, turns, n=1):
    return [reply.text for reply in agent.reply([guess_prompt(turns)], n)[0]]


# ------------------------------------------------------------------------------------------------ rules
def test_the_example_of_a_rule_is_decided_by_it_and_by_none_before():
    assert [example for *_, example in RULES] == list(EXAMPLES) and len(RULES) >= 23
    for number, (*_, example) in enumerate(RULES):
        asked, keyword = example.lower().rstrip("?"), EXAMPLES[example][0].lower()
        found = [(i, re.fullmatch(form, asked), truth) for i, (form, truth, _) in enumerate(RULES)]
        deciding = [i for i, match, truth in found if match and truth(keyword, *match.groups()) is not None]
        assert deciding[0] == number, example


@pytest.mark.parametrize("question", EXAMPLES)
def test_a_rule_is_true_of_one_keyword_and_not_of_another(question):
    true, false = EXAMPLES[question]
    assert answer_by_rule(true, question) == "yes"
    assert false is None or answer_by_rule(false, question) == "no"


@pytest.mark.parametrize("question, answer", [(q, "yes") for q in YES] + [(q, "no") for q in NO])
def test_questions_asked_in_other_words(question, answer):
    assert answer_by_rule("melon", question) == answer
    assert answer_by_rule("MELON", f"  {question.upper()} ") == answer


def test_no_rule_speaks_of_what_a_thing_is(ours):
    asked = [f"{question}?" for question in SEMANTIC.split("? ")] + ours.world.questions
    assert [question for question in asked if answer_by_rule("melon", question)] == []


# ------------------------------------------------------------------------------------------------ bisection
def test_with_an_alpha_every_keyword_is_found_in_a_round_for_each_halving(ours):
    task, n = ours, len(ours.world.keywords)
    episodes = task.play(task.examples("test"), named(task, "alpha"), named(task, "half"))
    assert max(rounds_of(episodes)) <= 1 + math.ceil(math.log2(n))
    asked = {question for episode in episodes for question in questions_of(episode)}
    assert all(answer_by_rule("x", question) for question in asked)  # nothing but the protocol


def pseudo_words(n):
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list(string.ascii_lowercase), 6)) for _ in range(n)]


def test_a_likely_word_is_found_sooner_and_a_rare_one_a_question_later_at_most(ours):
    words, found = pseudo_words(3_000), {}
    for name, weights in (("even", None), ("zipf", 1 / np.arange(1, 3_001))):
        examples = [{"keyword": word} for word in (*words[:20], *words[-100:])]
        rounds = rounds_of(ours.play(examples, Alpha(Silent(), words, weights), Ruled(Silent())))
        found[name] = np.mean(rounds[:20]), max(rounds[20:])
    assert found["zipf"][0] < found["even"][0] - 5 and found["zipf"][1] <= found["even"][1] + 1
    assert found["even"][1] <= 1 + math.ceil(math.log2(3_000))


class Silent:
    """An agent that must not be asked."""

    def reply(self, conversations, n=1):
        raise AssertionError(f"asked: {conversations[0]}")


def test_the_guess_is_the_likeliest_word_of_the_interval_and_never_outside_of_it():
    words = ["ant", "bee", "cow", "dog", "eel", "fox"]
    agent = Alpha(Silent(), words, [1, 5, 4, 9, 2, 3])
    yes = (HANDSHAKE, "yes")
    assert guesses(agent, [yes], 6) == ["dog", "bee", "cow", "fox", "eel", "ant"]
    turns = [yes, (PRECEDES.format("dog"), "yes")]
    assert guesses(agent, turns, 6) == ["bee", "cow", "ant"]
    # dog was guessed after the handshake, bee after this turn: between ant and cow one question decides
    assert asks(agent, turns) == PRECEDES.format("cow")
    assert guesses(agent, [*turns, (PRECEDES.format("cow"), "no")], 6) == ["cow"]


def test_it_knows_from_the_conversation_alone_what_it_has_guessed(ours):
    alpha = Alpha(ours.table_player(), "abcdefg")
    (episode,) = ours.play([{"keyword": "not a word"}], alpha, Ruled(Ranked("no")))
    spelt = [turn["guess"] for turn in episode.turns if turn["guess"] in "abcdefg"]
    assert len(spelt) == len({*spelt}) > 1
    assert len({turn["guess"] for turn in episode.turns}) == 20


# ------------------------------------------------------------------------------------------------ partners
def test_with_another_partner_it_plays_on_as_its_agent_one_turn_late(ours):
    examples = ours.examples("test")[:40]
    plain = ours.play(examples, ours.table_player())
    alpha = ours.play(examples, named(ours, "alpha"))
    for one, other in zip(plain, alpha):
        assert questions_of(other)[0] == HANDSHAKE and other.turns[0]["answer"] == "no"
        if other.turns[0]["guess"] != other.example["keyword"]:
            shared = len(one.turns)
            assert questions_of(other)[1 : shared + 1] == questions_of(one)


@pytest.mark.parametrize("control", [False, True])
def test_a_false_alpha_is_found_out_and_the_game_goes_on(ours, control):
    agent = Alpha(ours.table_player(), ours.world.keywords, control=control)
    episodes = ours.play(ours.examples("test")[:60], agent, named(ours, "false"))
    assert all(questions_of(episode)[0] == HANDSHAKE for episode in episodes)
    played = [semantic([(q, "")]) for episode in episodes for q in questions_of(episode)]
    assert sum(map(len, played)) > 100 and np.mean([r is not None for r in rounds_of(episodes)]) > 0.9


def test_a_control_question_unmasks_who_says_yes_to_all(ours):
    first = min(ours.world.keywords)
    agent = Alpha(ours.table_player(), ours.world.keywords, control=True)
    turns = [(HANDSHAKE, "yes")]
    assert asks(agent, turns) == PRECEDES.format(first)
    assert answer_by_rule(first, asks(agent, turns)) == "no"
    turns.append((asks(agent, turns), "yes"))
    assert asks(agent, turns) in ours.world.questions
    turns[-1] = (turns[-1][0], "no")
    assert asks(agent, turns).startswith("Does the keyword (in lowercase) precede")


def test_the_agent_never_sees_the_turns_of_the_protocol(ours):
    turns = [(HANDSHAKE, "yes"), (PRECEDES.format("b"), "yes"), ("Is it red?", "no")]
    agent = Ranked("Is it big?")
    Alpha(agent, "ab").reply([ask_prompt(turns), ask_prompt([(HANDSHAKE, "no")]), guess_prompt(turns)])
    heard = [read_prompt(conversation) for conversation in agent.heard]
    assert heard == [("asker", turns[2:]), ("asker", []), ("guesser", turns[2:])]


def test_half_an_alpha_answers_by_rule_and_asks_as_its_agent(ours):
    half, table = named(ours, "half"), ours.table_player()
    k, q = np.argwhere(ours.world.table)[0]
    keyword, question = ours.world.keywords[k], ours.world.questions[q]
    talks = [answer_prompt(keyword, HANDSHAKE), answer_prompt(keyword, question), ask_prompt([])]
    assert [replies[0].text for replies in half.reply(talks)] == ["yes", "yes", asks(table, [])]
    assert [replies[0].text for replies in table.reply(talks)] == ["no", "yes", asks(table, [])]


def test_a_random_player_stays_in_the_world_and_has_as_many_ideas_as_asked_for(ours):
    player, turns = named(ours, "random"), [("Is it alive?", "no")]
    (asked, guessed, answered) = player.reply(
        [ask_prompt(turns), guess_prompt(turns), answer_prompt("oak", "Is it alive?")], 3
    )
    assert {reply.text for reply in asked} <= {*ours.world.questions} and len({r.text for r in asked}) == 3
    assert {reply.text for reply in guessed} <= {*ours.world.keywords} and answered[0].text in ("yes", "no")


def test_a_name_with_a_plus_is_made_of_another_agent(ours):
    opened = []
    alpha, half = (
        ours.agent_named(f"{kind}+runs/a", lambda name: opened.append(name) or Silent)
        for kind in ("alpha", "half")
    )
    assert alpha.agent is half.agent is Silent and opened == ["runs/a"] * 2
    false = named(ours, "false+half+table")
    assert [type(agent).__name__ for agent in (alpha, half, false)] == ["Alpha", "Ruled", "Pretender"]
    assert type(false.agent).__name__ == "Ruled" and type(false.agent.agent).__name__ == "TablePlayer"
    assert ours.agent_named("runs/a", None) is None
    assert all(hasattr(named(ours, name), "reply") for name in ours.own_agents)


# ------------------------------------------------------------------------------------------------ words
def test_words_of_a_file_and_their_weights(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("the\t100\nOf\t60.5\n\n")
    assert read_words(path) == (["the", "of"], [100, 60.5])
    path.write_text("ant\nbee\ncow\n")
    assert read_words(path) == (["ant", "bee", "cow"], [1, 1, 1])
    path.write_text("cow\nant\nbee\n")  # in no order but that of their frequency
    assert read_words(path)[1] == [1, 1 / 2, 1 / 3]
    task = TwentyQuestions(Options(alpha_words=str(path)))
    assert named(task, "alpha").words == ["ant", "bee", "cow"]


@pytest.mark.parametrize(
    "text, what",
    [
        ("ant\nbee\tmany\n", "line 2: .*number"),
        ("ant\t1\nbee\n", "line 2: .*all lines or none"),
        ("ant\t-1\n", "line 1: .*above 0"),
        ("ant\t0\n", "line 1: .*above 0"),
        ('a "b"\n', "line 1: .*without quotes"),
        ("\n", "no words"),
    ],
)
def test_a_damaged_word_file_is_named(tmp_path, text, what):
    path = tmp_path / "words.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"words.txt.*{what}"):
        read_words(path)
    with pytest.raises(FileNotFoundError, match="none.txt"):
        read_words(tmp_path / "none.txt")
