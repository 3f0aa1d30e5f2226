"""Questions about the spelling of a keyword, answered by rule: letters, words, lengths, alphabetical order.

Programs ask such questions and expect exact answers, which language models rarely give. Read the table RULES
first, then the functions that it calls. Alphabetical order is the order of character codes, as programs sort:
a space or a hyphen comes before every letter."""

import re

from games.twentyq.world import plain

HANDSHAKE = "Is it Agent Alpha?"  # a partner that says yes answers PRECEDES exactly
PRECEDES = 'Does the keyword (in lowercase) precede "{}" in alphabetical order?'

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
VOWELS = "aeiou"
CONSONANTS = "bcdfghjklmnpqrstvwxyz"
# names of sets of letters
LETTER_SETS = {"vowel": VOWELS, "consonant": CONSONANTS}
LETTER_SETS |= {"the first half": ALPHABET[:13], "the second half": ALPHABET[13:]}
NUMBERS = {word: i for i, word in enumerate("one two three four five six seven eight nine ten".split(), 1)}
NUMBERS |= {"single": 1}
# place -> index into a word's letters, or into a keyword's words
PLACES = {"first": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4, "last": -1}
MARKS = {"hyphen": "-", "dash": "-", "space": " ", "apostrophe": "'", "digit": "0123456789"}
UNITS = {  # unit -> how many of it a keyword has
    "word": lambda word: len(word.split()),
    "letter": lambda word: len(spelled(word)),
    "character": len,
    "vowel": lambda word: sum(letter in VOWELS for letter in word),
    "consonant": lambda word: sum(letter in CONSONANTS for letter in word),
}

spelled = lambda word: "".join(letter for letter in word if letter.isalpha())


# ------------------------------------------------------------------------------------------------ functions
def letters_of(text):
    """The letters that a text stands for, as a string, or None if it stands for anything else. Such texts are
    '"m"', 'a, b or c', 'a letter from a to m', 'a vowel' and 'before n'."""
    text = re.sub(r"[\"():]|,? (?:in|of) the alphabet", "", text).strip()
    # drop the words before "letter", "letter" itself, and the verb that may follow
    text = re.sub(r"^.*?\b(?=(?:letters?|vowel|consonant)\b)", "", text)
    text = re.sub(
        r"^(?:(?:letters?|either|both|any of|one of|these|the following|that) ?)+(?!\w*$)", "", text
    )
    text = re.sub(r"^letters? |^(?:comes?|is|are|in|from) ", "", text.strip())
    # the rest is a set, a bound, a range or a list of letters
    if text in LETTER_SETS:
        return LETTER_SETS[text]
    if bound := re.fullmatch(r"(before|after) ([a-z])", text):
        place = ALPHABET.index(bound[2])
        return ALPHABET[:place] if bound[1] == "before" else ALPHABET[place + 1 :]
    if ends := re.fullmatch(r"between ([a-z]) and ([a-z])|([a-z]) ?(?:-|to|through) ?([a-z])", text):
        first, last = sorted(ALPHABET.index(letter) for letter in ends.groups() if letter)
        return ALPHABET[first : last + 1]
    listed = re.split(r"(?:[,/ ]|\b(?:or|and)\b)+", text)
    return "".join(listed) if all(len(letter) == 1 for letter in listed) else None


def has_letter_at(word, place, text):
    """Whether the letter at a place of a word is among the letters that a text names."""
    letters = letters_of(text)
    letter = spelled(word)[PLACES[place] :][:1]  # "" if the word is too short
    return None if letters is None else letter != "" and letter in letters


def has_letters(word, text):
    """Whether a word has one of the letters that a text names, or all of them if the text says so."""
    letters = letters_of(text)
    needed = all if re.search(r"\b(?:all|both|and)\b", text) and "between" not in text else any
    return None if letters is None else needed(letter in word for letter in letters)


def has_count(word, how, number, more, unit):
    """Whether a word has the stated number of units.

    The arguments are the groups of the rule: how "more than", number "5" or "five", more "or more", unit
    "letter"."""
    count = UNITS[unit](word)
    bound = NUMBERS.get(number) or int(number)
    if how == "at least" or more == "more":
        return count >= bound
    if how in ("at most", "no more than") or more:
        return count <= bound
    if not how:
        return count == bound
    return count < bound if how in LESS.split("|") else count > bound


def is_in_order(word, where, other):
    """Whether a word comes before, or after, another word in alphabetical order."""
    return word < other if re.search("precede|before|earlier", where) else word > other


def answer_about_word(word, begin, place, end):
    """The answer to a question about one word of the keyword: the question without "the last word of"."""
    part = word.split()[PLACES[place] :][:1]  # empty if the keyword has too few words
    return apply_rules(part[0], f"{begin}the keyword{end}") if part else False


# ------------------------------------------------------------------------------------------------ the table
# parts of the regexes; each name stands for a phrase of the questions
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
# (regex of a question, truth(keyword in lower case, *groups of the regex), an example); the first rule that
# matches and does not return None decides
RULES = [
    (r".*\bagent alpha\b.*", lambda word: True, HANDSHAKE),
    (
        rf"(.*)the {PLACE} word (?:of|in) {IT}(.*)",
        answer_about_word,
        "Does the last word of the keyword start with m?",
    ),
    (ORDER + rf"{ITS}{WHERE} {WORD}.*", is_in_order, PRECEDES.format("melon")),
    (
        ORDER + rf"(?:does|is) {WORD} {WHERE} {IT}\b.*",
        lambda word, other, where: is_in_order(other, where, word),
        'Is "melon" before the keyword in alphabetical order?',
    ),
    (
        rf"{ITS}(?:start|begin)(?:s|ning|ing)? and ends? with the same letter",
        lambda word: spelled(word)[:1] == spelled(word)[-1:],
        "Does it start and end with the same letter?",
    ),
    (
        rf"{ITS}(?:start|begin)(?:s|ning|ing)? with (.+)",
        lambda word, text: has_letter_at(word, "first", text),
        "Does the keyword begin with one of the letters a, m or z?",
    ),
    (
        rf"{ITS}(?:start|begin)(?:s|ning|ing)? with {WORD}",
        lambda word, text: word.startswith(text),
        'Does the keyword start with "me"?',
    ),
    (
        rf"{ITS}end(?:s|ing)? (?:with|in) (.+)",
        lambda word, text: has_letter_at(word, "last", text),
        "Does it end with a vowel?",
    ),
    (
        rf"{ITS}end(?:s|ing)? (?:with|in) {WORD}",
        lambda word, text: word.endswith(text),
        'Does the keyword end with the letters "on"?',
    ),
    (
        rf"(?:is|does|are) the {PLACE} letter (?:of|in) {IT} (?:an? )?(.+)",
        has_letter_at,
        "Is the first letter of the keyword between a and m?",
    ),
    (
        rf"(?:is|does) (?:its|{NAME}'s) {PLACE} letter (?:an? )?(.+)",
        has_letter_at,
        'Is its second letter "e"?',
    ),
    (
        rf"{ITS}(?:have|has) (?:an? )?(.+) as (?:its|the) {PLACE} letter",
        lambda word, text, place: has_letter_at(word, place, text),
        "Does it have an e as its third letter?",
    ),
    (rf"{ITS}{MADE}{HOW}(?:an? )?{MANY} {UNIT}", has_count, "Does it have more than five letters?"),
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
    (rf"{THERE}(.+?)(?: in {IT})?", has_letters, 'Does the keyword contain the letter "e"?'),
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


def apply_rules(word, question):
    """The truth of a question about a keyword by the first rule that decides it, or None."""
    for form, truth, _ in RULES:
        match = re.fullmatch(form, question)
        answer = truth(word, *match.groups()) if match else None
        if answer is not None:
            return bool(answer)
    return None


def answer_by_rule(keyword, question):
    """ "yes" or "no" if a rule decides a question about a keyword, else None."""
    # one kind of quotation mark, lower case, single spaces: the form that RULES expect
    question = re.sub(r"[\u201c\u201d\u2018\u2019`]", "'", question.lower())
    question = re.sub(r"(?<!\w)'|'(?!\w)", '"', question)  # but not the apostrophe of "keyword's"
    question = re.sub(r"(?<=\w)-(?=words?\b|letters?\b)|\s+", " ", question)  # "a two-word term"
    truth = apply_rules(keyword.lower(), question.strip("?. "))
    if truth is None:
        return None
    return "yes" if truth else "no"
