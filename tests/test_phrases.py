import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_encoders import train_word_pieces
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from fgmm_tools.milnce import make_tokenizer
from fgmm_tools.training.tokenizer import train_word_tokenizer
from processing_fgmm.phrases_fgmm import (
    WORD,
    find_content_words,
    find_phrases,
    find_unknown_words,
    is_function_word,
    split_evenly,
    to_token_spans,
)


def phrases(text: str, max_words: int = 4) -> list[str]:
    return [text[start:end] for start, end in find_phrases(text, max_words)]


def test_function_words_separate_phrases():
    assert phrases("crack two eggs into a bowl") == ["crack two eggs", "bowl"]


def test_transcripts_need_no_punctuation():
    with_points = phrases("Now stir the sauce. Add some salt, and let it rest!")
    without = phrases("now stir the sauce add some salt and let it rest")
    assert [p.lower() for p in with_points] == ["now stir", "sauce", "add", "salt", "let", "rest"]
    assert without == ["now stir", "sauce add", "salt", "let", "rest"]


def test_long_runs_are_split_evenly():
    assert phrases("zero two three four five six", 4) == ["zero two three", "four five six"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 50), st.integers(1, 8))
def test_pieces_are_the_fewest_and_of_nearly_one_length(length, max_length):
    pieces = split_evenly(list(range(length)), max_length)
    assert list(itertools.chain.from_iterable(pieces)) == list(range(length))
    assert len(pieces) == math.ceil(length / max_length)
    assert not pieces or max(map(len, pieces)) <= min(max_length, min(map(len, pieces)) + 1)


def test_text_of_function_words_alone_has_a_phrase():
    assert phrases("this is it") == ["this is it"]


@pytest.mark.parametrize("text", ["", "   ", "...", "!?", "\n\t"])
def test_text_without_a_word_has_none(text):
    assert phrases(text) == []


def test_single_letters_are_words_and_halves_of_contractions_are_not():
    assert phrases("set red with t nine again") == ["set red", "t nine again"]
    assert phrases("a boy 's dog") == ["boy", "dog"]


def test_other_scripts_and_emoji():
    assert phrases("два яйца в миске") == ["два яйца в миске"]
    assert "".join(phrases("把两个鸡蛋打进碗里")) == "把两个鸡蛋打进碗里"
    assert phrases("egg 🥚 bowl 🍳") == ["egg", "bowl"]
    assert phrases("बिल्ली दूध")[0].startswith("ब")


PIECES = ["egg", "Bowl", "dog's", "7up", "бык", "鸡", "蛋", "é", "the", "INTO", "it's", "'", "’s", "s", "_", "🍳", "."]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*PIECES, " ", " ", " ", "\n", "-"]), max_size=30).map("".join), st.integers(1, 5))
def test_phrases_are_the_content_words(text, max_words):
    spans = find_phrases(text, max_words)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    words = [match.span() for match in WORD.finditer(text)]
    content = [word for word in words if not is_function_word(text, *word)]
    covered = [[word for word in words if start <= word[0] and word[1] <= end] for start, end in spans]
    assert list(itertools.chain.from_iterable(covered)) == (content or words)
    for (start, end), inside in zip(spans, covered, strict=True):
        assert 0 < len(inside) <= max_words and (start, end) == (inside[0][0], inside[-1][1])
        assert not content or all(not text[one[1] : other[0]].strip() for one, other in itertools.pairwise(inside))


def subword_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["crack two eggs into a bowl", "stir two bowls"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")


def test_spans_of_subwords_cover_exactly_their_phrases():
    tokenizer = subword_tokenizer()
    text = "crack two eggs, into a big bowl"
    encoded = tokenizer(text, return_offsets_mapping=True)
    found = find_phrases(text, 4)
    spans = to_token_spans(found, encoded["offset_mapping"])
    pieces = [tokenizer.decode(encoded["input_ids"][first:last]).strip() for first, last in spans]
    assert pieces == [text[start:end] for start, end in found]


def test_phrases_that_truncation_cut_off_are_left_out():
    offsets = [(0, 3), (4, 7)]
    assert to_token_spans([(0, 3), (4, 7), (8, 12)], offsets) == [(0, 1), (1, 2)]
    assert to_token_spans([(0, 3)], [(0, 0), (0, 3), (0, 0)]) == [(1, 2)]


def test_content_words_are_those_of_the_phrases():
    assert find_content_words("Crack two eggs, don't stir them!") == ["Crack", "two", "eggs", "stir"]
    assert find_content_words("this is it") == ["this", "is", "it"] and find_content_words("?! 🎉") == []


def train_bytes(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte pair encoding, which can spell everything."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize(
    "make,unknown",
    [
        (lambda: train_word_tokenizer(["crack two eggs", "a chef's t"], 50), ["qwertz", "Zyzzyva's", "蛋"]),
        (lambda: make_tokenizer(["crack", "eggs", "chef's"]), ["two", "qwertz", "Zyzzyva's", "蛋"]),  # drops them
        (lambda: train_word_pieces(["crack two eggs", "a chef's qwertz zyva"]), ["蛋"]),
        (lambda: train_bytes(["crack"]), []),
    ],
    ids=["words", "dropped words", "word pieces", "bytes"],
)
def test_unknown_words(make, unknown):
    """An apostrophe that is unknown does not make a word unknown."""
    words = ["Crack", "two", "eggs", "qwertz", "Zyzzyva's", "蛋", "chef's"]
    tokenizer = make()
    assert find_unknown_words(words, tokenizer) == unknown and find_unknown_words([], tokenizer) == []
    tokenizer.backend_tokenizer.enable_truncation(1)  # as one that was saved after it truncated a text
    assert find_unknown_words(words, tokenizer) == unknown
