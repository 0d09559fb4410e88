"""The stories of a lower-cased corpus, one by one, and a copy of them with capitals.

It guarantees: every story is plain ASCII, ends like a sentence and occurs once; its
paragraphs are separated by one blank line.

It does not know: the original text. Where a story begins and which words are names
are guesses from the look of the lines and from the company that words keep.
"""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

# The corpus was decoded with the wrong code page, which lost the last byte of the closing quote.
MARKS = {"\u201c": '"', "\u2019": "'", "\u2018": "'", "\u2013": "-", "\u2014": "-", "\u2026": "..."}
MOJIBAKE = {mark.encode().decode("cp1252"): plain for mark, plain in MARKS.items()} | {"\u00e2\u20ac": '"'}

OPENING = re.compile(
    r"once\b|one (\w+ )?(day|morning|afternoon|evening|night|summer|winter|spring)\b"
    r"|there (once )?(was|were|lived)\b|it was a\b"
)
CONTINUING = re.compile(
    r"(he|she|it|they|we|you|i|his|her|their|its|so|but|and|then|when|after|as|suddenly|finally|soon|just"
    r"|from|the (end|moral|little|old|next|two)|this|that|at|in the end|later|now|with|what|yes|no)\b|[^a-z]"
)
ENDED = re.compile(r"""[.!"'] ?$|end ?$""")
COMPLETE = re.compile(r"""[.!?"']$|\bend$""")


def words(text: str) -> set[str]:
    return set(text.split())


DETERMINERS = words("a an the his her my your their our some one each every little old big")
FAMILY = words("mom dad mommy daddy mum mummy mama papa grandma grandpa granny nana")
ALWAYS = words("i mr mrs ms monday tuesday wednesday thursday friday saturday sunday christmas halloween santa")
NO_NAME = words(
    "out the her a for his him to it them an will may mark on from again down big red blue green my me this that there"
    " she he they everyone mom dad someone help joy true one and in at by all everybody names people with"
)
NAMED = re.compile(r"\b(?:named|called) ([a-z]+)\b")
NAME_OPENS = re.compile(r"([a-z]+)(?: and ([a-z]+))? (?:was|were|is|are|had|liked?|loved?|wanted|went)\b")
BEFORE_COMMON = re.compile(rf"\b({'|'.join(sorted(DETERMINERS))}|[a-z]+'s) $")
BEFORE_PAIR = re.compile(r"(\b(his|her|my|your|their|our|the)|'s) \w+ and $")
SPEECH = r"(?:said|asked|replied|shouted|exclaimed|cried|called|answered|yelled|whispered|thought|laughed)"
SENTENCE = re.compile(
    rf"""(?:^|\n|\.["']? |[!?] |[!?]["'] (?!(?:[\w']+ ){{1,4}}{SPEECH}\b)|(?:^|[\s,:])")["']?([a-z])"""
)


def read_stories(path: Path) -> list[str]:
    """The stories of the corpus in their order.

    Inside most stories paragraphs are separated by blank lines, and a new story
    follows a single newline. Some stories separate their paragraphs by a single
    newline too: those lines rarely open like a story and often trail a space.
    """
    text = path.read_text(encoding="utf-8")
    for wrong, right in MOJIBAKE.items():
        text = text.replace(wrong, right)
    lines = text.split("\n")
    stories: list[list[str]] = [[]]
    for above, line, below in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        if not line.strip():
            continue
        plain = not above.endswith(" ") and not below.strip() and not CONTINUING.match(line)
        if ENDED.search(above) and (OPENING.match(line) or plain):
            stories.append([])
        stories[-1].append(re.sub(r"\s+", " ", line.strip()))
    # The corpus is a cut: its last story may lack an end.
    texts = ["\n\n".join(story) for story in stories[:-1]]
    return [t for t in dict.fromkeys(texts) if t.isascii() and len(t) >= 200 and COMPLETE.search(t)]


def find_names(stories: list[str]) -> set[str]:
    """Words that stories introduce as a name and that seldom follow a determiner."""
    introduced: Counter[str] = Counter()
    total: Counter[str] = Counter()
    determined: Counter[str] = Counter()
    for story in stories:
        introduced.update(NAMED.findall(story))
        if opening := NAME_OPENS.match(story):
            introduced.update(filter(None, opening.groups()))
        spoken = re.findall(r"[a-z]+", story)
        total.update(spoken)
        determined.update(word for before, word in pairwise(spoken) if before in DETERMINERS)
    return {w for w, n in introduced.items() if n > 1 and w not in NO_NAME and determined[w] < 0.12 * total[w]}


def restore_case(story: str, names: set[str]) -> str:
    """The story with the capitals that it probably had."""
    known = names | FAMILY | (set(NAMED.findall(story)) - NO_NAME)

    def capital(match: re.Match[str]) -> str:
        word, before = match.group(), story[max(0, match.start() - 24) : match.start()]
        if word in ALWAYS:
            return word.capitalize()
        owned = BEFORE_COMMON.search(before) or (word in FAMILY and BEFORE_PAIR.search(before))
        return word.capitalize() if word in known and not owned else word

    capitals = re.sub(r"(?<![\w'])[a-z]+", capital, story)
    return SENTENCE.sub(lambda m: m.group(0)[:-1] + m.group(1).upper(), capitals)
