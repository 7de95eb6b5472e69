"""Splits texts into phrases, runs of content words between function words and punctuation; finds unknown words.

Transcripts of speech have no punctuation, so function words have to separate one phrase from the next.
"""

import itertools
import re
from collections.abc import Sequence

import numpy as np

# English articles, pronouns, prepositions, conjunctions, auxiliaries, and adverbs that carry no content.
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
# Second halves of contractions in captions that are written as "it 's"; elsewhere these letters are words.
CONTRACTIONS = frozenset(["s", "t", "re", "ve", "ll", "d", "m"])

# A word: letters, digits and inner apostrophes; in scripts written without spaces each character is a word.
WORD = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿]|[^\W_぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿]+(?:['’][^\W_]+)*")


def find_phrases(text: str, max_words: int) -> list[tuple[int, int]]:
    """Finds the phrases of a text.

    A phrase is a run of content words with only spaces between them; a run of more than `max_words` is split into
    phrases of nearly equal length. A text of function words alone ("this is it") counts as one run, so that every text
    with a word has a phrase.

    Args:
        text: with or without punctuation, in any script.
        max_words: maximum number of words in a phrase (W), at least 1.

    Returns:
        (start, end) of each phrase in order: character offsets, end exclusive.
    """
    words = [match.span() for match in WORD.finditer(text)]
    runs, current = [], []
    for start, end in words:
        if is_function_word(text, start, end):
            continue
        # Anything but space between two content words, punctuation or a function word, ends the run.
        if current and text[current[-1][1] : start].strip():
            runs.append(current)
            current = []
        current.append((start, end))
    runs.append(current)
    runs = [run for run in runs if run] or [words]
    return [(piece[0][0], piece[-1][1]) for run in runs for piece in split_evenly(run, max_words)]


def is_function_word(text: str, start: int, end: int) -> bool:
    """Whether the word `text[start:end]` is a function word or the second half of a contraction."""
    word = text[start:end].lower().replace("’", "'")
    return word in FUNCTION_WORDS or (word in CONTRACTIONS and text[max(start - 2, 0) : start].strip() in ("'", "’"))


def split_evenly(run: list, max_length: int) -> list[list]:
    """Splits a list into the fewest pieces of at most `max_length` items, whose lengths differ by at most one."""
    pieces = -(-len(run) // max_length)
    bounds = [round(index * len(run) / pieces) for index in range(pieces + 1)] if pieces else []
    return [run[first:last] for first, last in itertools.pairwise(bounds)]


def to_token_spans(phrases: list[tuple[int, int]], offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Converts phrases from character offsets to token indices.

    Args:
        phrases: (start, end) character offsets of each phrase, in order and without overlap.
        offsets: (start, end) character offsets of each token, as fast tokenizers return them; empty for special tokens.

    Returns:
        (first, last) token of each phrase, last exclusive; a phrase whose tokens were all truncated is left out.
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


def find_content_words(text: str) -> list[str]:
    """The words of all phrases of a text, in their order."""
    return [text[start:end] for start, end in find_phrases(text, max_words=1)]


def find_unknown_words(words: Sequence[str], tokenizer) -> list[str]:
    """The words that a tokenizer does not know: a letter or digit of them has no token, or the unknown token.

    Args:
        words: each is tokenized alone.
        tokenizer: a fast one, of words or of subwords, which can spell almost any word.
    """
    if not words:
        return []
    options = {"truncation": False, "padding": False, "verbose": False}
    encoded = tokenizer(list(words), add_special_tokens=False, return_offsets_mapping=True, **options)
    unknown = []
    for word, token_ids, offsets in zip(words, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        known = set()
        for token_id, (start, end) in zip(token_ids, offsets, strict=True):
            if token_id != tokenizer.unk_token_id:
                known.update(range(start, end))
        if any(character.isalnum() and place not in known for place, character in enumerate(word)):
            unknown.append(word)
    return unknown


def sample_words(tokenizer, number: int, excluded: set[str], generator: np.random.Generator) -> list[str]:
    """Random content words of a tokenizer's vocabulary, each of which it has as one token.

    Args:
        tokenizer: a fast one, of words or of subwords.
        number: of words at most.
        excluded: words in lower case that are not taken.
        generator: source of randomness.

    Returns:
        Different words of at least three letters.
    """
    vocabulary, words = sorted(tokenizer.get_vocab()), {}
    for place in generator.permutation(len(vocabulary)):
        word = tokenizer.convert_tokens_to_string([vocabulary[place]]).strip().lower()
        is_content = len(word) > 2 and word.isalpha() and word not in FUNCTION_WORDS and word not in excluded
        if is_content and len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1:
            words[word] = None
        if len(words) == number:
            break
    return list(words)


def replace_words(text: str, words: list[str], generator: np.random.Generator) -> str:
    """The text with random words in the places of its content words, so that it has the same phrases in number and
    length."""
    pieces, written = [], 0
    for start, end in find_phrases(text, max_words=1):
        pieces += [text[written:start], words[int(generator.integers(len(words)))]]
        written = end
    return "".join([*pieces, text[written:]])


__all__ = [
    "find_content_words",
    "find_phrases",
    "find_unknown_words",
    "replace_words",
    "sample_words",
    "to_token_spans",
]
