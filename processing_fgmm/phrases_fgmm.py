"""Text to words to phrases: runs of content words between function words and punctuation.

Speech transcripts have no punctuation, so that function words are what separates one thing said from the next.
"""

import itertools
import re

# Words that relate things rather than name them (English articles, pronouns, prepositions, conjunctions, auxiliaries).
FUNCTION_WORDS = frozenset(
    """
    a an the this that these those some any each every no such
    i me my mine we us our ours you your yours he him his she her hers it its they them their theirs one ones
    who whom whose which what there here
    and or but nor so yet if then than because while as though although until unless since when where how why whether
    of to in on at by for from with without into onto out off over under above below between among through across
    along around behind beside near toward towards up down about against during before after upon within
    am is are was were be been being do does did doing have has had having will would shall should can could may might
    must not
    don't doesn't didn't isn't aren't wasn't weren't won't can't it's i'm you're we're they're that's
    there's let's i'll you'll we'll i've you've we've gonna wanna
    just very really also too
    """.split()  # noqa: SIM905
)
# What is left of "it's" where captions are written "it 's"; elsewhere these letters are words of their own.
CONTRACTIONS = frozenset(["s", "t", "re", "ve", "ll", "d", "m"])

# A word: letters, digits and inner apostrophes; scripts written without spaces give one word a character.
WORD = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿]|[^\W_぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿]+(?:['’][^\W_]+)*")


def find_phrases(text: str, max_words: int) -> list[tuple[int, int]]:
    """The phrases of a text, in order.

    A phrase is a run of content words with nothing but spaces between them; a run longer than `max_words` is cut into
    pieces of nearly equal length. Text of function words alone ("this is it") is taken as a run, so that any text with
    a word has a phrase.

    Args:
        text: any text, with or without punctuation, in any script.
        max_words: the most words in a phrase, at least 1.

    Returns:
        First character and one past the last of each phrase.
    """
    words = [match.span() for match in WORD.finditer(text)]
    runs, current = [], []
    for start, end in words:
        if is_function_word(text, start, end):
            continue
        # Between two words of a run there is only space; else punctuation or a function word parts them.
        if current and text[current[-1][1] : start].strip():
            runs.append(current)
            current = []
        current.append((start, end))
    runs.append(current)
    runs = [run for run in runs if run] or [words]
    return [(piece[0][0], piece[-1][1]) for run in runs for piece in split_evenly(run, max_words)]


def is_function_word(text: str, start: int, end: int) -> bool:
    """Whether the word between two characters is a function word, or the rest of a contraction."""
    word = text[start:end].lower().replace("’", "'")
    return word in FUNCTION_WORDS or (word in CONTRACTIONS and text[max(start - 2, 0) : start].strip() in ("'", "’"))


def split_evenly(run: list, max_length: int) -> list[list]:
    """Cuts a list into the fewest pieces of at most `max_length`, their lengths differing by at most one."""
    pieces = -(-len(run) // max_length)
    bounds = [round(index * len(run) / pieces) for index in range(pieces + 1)] if pieces else []
    return [run[first:last] for first, last in itertools.pairwise(bounds)]


def to_token_spans(phrases: list[tuple[int, int]], offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Phrases in characters to phrases in tokens.

    Args:
        phrases: first character and one past the last of each phrase, in order, without overlap.
        offsets: the same for each token; (0, 0), or any empty range, for special tokens.

    Returns:
        First token and one past the last for each phrase that has a token (truncation may have cut it off).
    """
    spans, token = [], 0
    for start, end in phrases:
        while token < len(offsets) and (offsets[token][1] <= start or offsets[token][0] == offsets[token][1]):
            token += 1
        first = token
        while token < len(offsets) and offsets[token][0] < end and offsets[token][0] < offsets[token][1]:
            token += 1
        if token > first:
            spans.append((first, token))
    return spans
