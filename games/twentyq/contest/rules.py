"""Questions about how a keyword is spelled, answered by rule: letters, words, lengths, alphabetical order.

Programs ask such questions and expect exact answers, which language models rarely give. Read RULES, the
table, then what its functions call. Alphabetical order is that of the characters' codes, as programs sort: a
space or a hyphen stands before every letter."""

import re

from games.twentyq.world import plain

HANDSHAKE = "Is it Agent Alpha?"  # whoever says yes answers PRECEDES exactly
PRECEDES = 'Does the keyword (in lowercase) precede "{}" in alphabetical order?'

ALPHABET, VOWELS = "abcdefghijklmnopqrstuvwxyz", "aeiou"
CONSONANTS = "bcdfghjklmnpqrstvwxyz"
KINDS = {"vowel": VOWELS, "consonant": CONSONANTS}  # of letters
KINDS |= {"the first half": ALPHABET[:13], "the second half": ALPHABET[13:]}
NUMBERS = {word: i for i, word in enumerate("one two three four five six seven eight nine ten".split(), 1)}
NUMBERS |= {"single": 1}
PLACES = {"first": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4, "last": -1}
MARKS = {"hyphen": "-", "dash": "-", "space": " ", "apostrophe": "'", "digit": "0123456789"}
UNITS = {  # what is counted of a keyword
    "word": lambda word: len(word.split()),
    "letter": lambda word: len(spelled(word)),
    "character": len,
    "vowel": lambda word: sum(letter in VOWELS for letter in word),
    "consonant": lambda word: sum(letter in CONSONANTS for letter in word),
}

spelled = lambda word: "".join(letter for letter in word if letter.isalpha())


# ------------------------------------------------------------------------------------------------ functions
def letters_of(text):
    """The letters, a string, that words such as '"m"', 'a, b or c', 'a letter from a to m', 'a vowel' and
    'before n' stand for; None where they say something else."""
    text = re.sub(r"[\"():]|,? (?:in|of) the alphabet", "", text).strip()
    text = re.sub(r"^.*?\b(?=(?:letters?|vowel|consonant)\b)", "", text)
    text = re.sub(
        r"^(?:(?:letters?|either|both|any of|one of|these|the following|that) ?)+(?!\w*$)", "", text
    )
    text = re.sub(r"^letters? |^(?:comes?|is|are|in|from) ", "", text.strip())
    if text in KINDS:
        return KINDS[text]
    if found := re.fullmatch(r"(before|after) ([a-z])", text):
        place = ALPHABET.index(found[2])
        return ALPHABET[:place] if found[1] == "before" else ALPHABET[place + 1 :]
    if found := re.fullmatch(r"between ([a-z]) and ([a-z])|([a-z]) ?(?:-|to|through) ?([a-z])", text):
        first, last = sorted(ALPHABET.index(letter) for letter in found.groups() if letter)
        return ALPHABET[first : last + 1]
    listed = re.split(r"(?:[,/ ]|\b(?:or|and)\b)+", text)
    return "".join(listed) if all(len(letter) == 1 for letter in listed) else None


def has_at(word, place, text):
    """Whether one of the letters that a text names is at a place of a word."""
    letters, own = letters_of(text), spelled(word)[PLACES[place] :][:1]
    return None if letters is None else own != "" and own in letters


def has(word, text):
    """Whether one of the letters that a text names is in a word, or all where the text says so."""
    letters = letters_of(text)
    needed = all if re.search(r"\b(?:all|both|and)\b", text) and "between" not in text else any
    return None if letters is None else needed(letter in word for letter in letters)


def counts(word, how, number, more, unit):
    """Whether a word has as many units as said: ("more than", "5", None, "letter")."""
    found, said = UNITS[unit](word), NUMBERS.get(number) or int(number)
    if how == "at least" or more == "more":
        return found >= said
    if how in ("at most", "no more than") or more:
        return found <= said
    if how and how not in LESS.split("|"):
        return found > said
    return found < said if how else found == said


def stands(word, where, other):
    """Whether a word stands before, or behind, another in alphabetical order."""
    return word < other if re.search("precede|before|earlier", where) else word > other


def in_word(word, begin, place, end):
    """The answer to a question about one word of the keyword."""
    own = word.split()[PLACES[place] :][:1]
    return decided(own[0], f"{begin}the keyword{end}") if own else False


# ------------------------------------------------------------------------------------------------ the table
NAME = r"(?:the |this |your )?(?:secret )?(?:key ?word|word|name|term|answer|phrase)"
IT = rf"(?:it|its name|{NAME}(?:'s name| itself)?|the spelling of {NAME})"
ITS = rf"(?:does|is|has|would) {IT} (?:\(in lower ?case\) )?"
PLACE = rf"({'|'.join(PLACES)})"
MANY = rf"(\d+|{'|'.join(NUMBERS)})(?: or (more|fewer|less))?"
LESS = "fewer than|less than|under|shorter than"
HOW = rf"(?:(more than|over|longer than|{LESS}|at least|at most|no more than) )?"
UNIT = rf"({'|'.join(UNITS)})s?(?: long| in length| in {IT}| term| phrase| name)?"
MADE = r"(?:consists? of |contains? |have |has |(?:made|composed) (?:up )?of )?(?:an? |exactly |only |just )*"
BESIDE = "before|after|earlier than|later than"
WHERE = rf"(precedes?|follows?|succeeds?|(?:comes? |is |be |stands? )?(?:\w+ally )?(?:{BESIDE}))"
WORD = r"(?:the )?(?:word |term |letters? |string )?\"([^\"]+)\""
ORDER = r"(?=.*(?:alphabet|lexicograph|dictionary))(?:(?:in|if|when)\b[^\"]*, )?"
THERE = rf"(?:{ITS}(?:contains?|includes?|have|has)|(?:is|are) there) (?:an?y? )?"
RULES = [  # (form of a question, truth by the keyword in lower case and the form's groups, an example)
    (r".*\bagent alpha\b.*", lambda word: True, HANDSHAKE),
    (rf"(.*)the {PLACE} word (?:of|in) {IT}(.*)", in_word, "Does the last word of the keyword start with m?"),
    (ORDER + rf"{ITS}{WHERE} {WORD}.*", stands, PRECEDES.format("melon")),
    (
        ORDER + rf"(?:does|is) {WORD} {WHERE} {IT}\b.*",
        lambda word, other, where: stands(other, where, word),
        'Is "melon" before the keyword in alphabetical order?',
    ),
    (
        rf"{ITS}(?:start|begin)(?:s|ning|ing)? and ends? with the same letter",
        lambda word: spelled(word)[:1] == spelled(word)[-1:],
        "Does it start and end with the same letter?",
    ),
    (
        rf"{ITS}(?:start|begin)(?:s|ning|ing)? with (.+)",
        lambda word, text: has_at(word, "first", text),
        "Does the keyword begin with one of the letters a, m or z?",
    ),
    (
        rf"{ITS}(?:start|begin)(?:s|ning|ing)? with {WORD}",
        lambda word, text: word.startswith(text),
        'Does the keyword start with "me"?',
    ),
    (
        rf"{ITS}end(?:s|ing)? (?:with|in) (.+)",
        lambda word, text: has_at(word, "last", text),
        "Does it end with a vowel?",
    ),
    (
        rf"{ITS}end(?:s|ing)? (?:with|in) {WORD}",
        lambda word, text: word.endswith(text),
        'Does the keyword end with the letters "on"?',
    ),
    (
        rf"(?:is|does|are) the {PLACE} letter (?:of|in) {IT} (?:an? )?(.+)",
        has_at,
        "Is the first letter of the keyword between a and m?",
    ),
    (rf"(?:is|does) (?:its|{NAME}'s) {PLACE} letter (?:an? )?(.+)", has_at, 'Is its second letter "e"?'),
    (
        rf"{ITS}(?:have|has) (?:an? )?(.+) as (?:its|the) {PLACE} letter",
        lambda word, text, place: has_at(word, place, text),
        "Does it have an e as its third letter?",
    ),
    (rf"{ITS}{MADE}{HOW}(?:an? )?{MANY} {UNIT}", counts, "Does it have more than five letters?"),
    (
        rf"{ITS}{MADE}between (\d+) and (\d+) {UNIT}",
        lambda word, low, high, unit: int(low) <= UNITS[unit](word) <= int(high),
        "Is the keyword between 5 and 8 letters long?",
    ),
    (
        rf"{ITS}{MADE}(?:multiple|several) {UNIT}",
        lambda word, unit: UNITS[unit](word) > 1,
        "Is the keyword made of several words?",
    ),
    (
        rf"{ITS}(?:have|has|contains?) an (even|odd) number of {UNIT}",
        lambda word, kind, unit: UNITS[unit](word) % 2 == (kind == "odd"),
        "Does the keyword have an even number of letters?",
    ),
    (
        rf"{THERE}(?:double letters?|(?:two|the same) (?:identical )?letters? (?:twice )?in a row).*",
        lambda word: bool(re.search(r"([a-z])\1", word)),
        "Does the keyword contain a double letter?",
    ),
    (
        rf"{THERE}(?:repeat(?:ed|ing) letters?|(?:the same )?letter (?:more than once|twice))",
        lambda word: len({*spelled(word)}) < len(spelled(word)),
        "Does the keyword have any letter more than once?",
    ),
    (
        rf"{THERE}(.+?) (?:more than once|twice|at least twice)",
        lambda word, text: None if letters_of(text) is None else word.count(letters_of(text)) > 1,
        "Does the keyword contain the letter e more than once?",
    ),
    (
        rf"{THERE}({'|'.join(MARKS)})s?(?: in {IT})?",
        lambda word, mark: any(c in word for c in MARKS[mark]),
        "Does the keyword contain a hyphen?",
    ),
    (rf"{THERE}(.+?)(?: in {IT})?", has, 'Does the keyword contain the letter "e"?'),
    (rf"{THERE}{WORD}(?: in {IT})?", lambda word, text: text in word, 'Does it contain the word "lemon"?'),
    (
        rf"is {IT} (?:in|on|(?:one|any) of) (?:the following|this|these)(?: \w+)?: ?(.+)",
        lambda word, text: plain(word) in map(plain, re.split(r",| or ", text)),
        "Is the keyword one of the following: apple, melon, pear?",
    ),
    (
        rf"is {IT} (?:equal to |the same as |exactly )?(?:an? )?{WORD}",
        lambda word, text: plain(word) == plain(text),
        'Is the keyword "melon"?',
    ),
]


def decided(word, question):
    """What the first rule that takes a question about a keyword says, or None."""
    for form, truth, _ in RULES:
        found = re.fullmatch(form, question)
        said = truth(word, *found.groups()) if found else None
        if said is not None:
            return bool(said)
    return None


def answer_by_rule(keyword, question):
    """ "yes" or "no" where a rule decides a question about a keyword, else None."""
    question = re.sub(r"[\u201c\u201d\u2018\u2019`]", "'", question.lower())
    question = re.sub(r"(?<!\w)'|'(?!\w)", '"', question)  # but not the apostrophe of "keyword's"
    question = re.sub(r"(?<=\w)-(?=words?\b|letters?\b)|\s+", " ", question)  # "a two-word term"
    said = decided(keyword.lower(), question.strip("?. "))
    return None if said is None else "yes" if said else "no"
