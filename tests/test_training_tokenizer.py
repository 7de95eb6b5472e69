from datasets import IterableDataset

from fgmm_tools.training.tokenizer import iterate_captions, train_word_tokenizer

TEXTS = ["A red ball, a RED box.", "red balls"]


def test_words_and_punctuation_marks_are_tokens_in_lower_case():
    tokenizer = train_word_tokenizer(TEXTS, 100)
    assert tokenizer.tokenize("Red boxes: a ball!") == ["red", "[UNK]", "[UNK]", "a", "ball", "[UNK]"]
    assert set(tokenizer.get_vocab()) == {"[PAD]", "[UNK]", "a", "red", "ball", "balls", "box", ",", "."}
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 1)


def test_the_most_frequent_words_are_kept():
    assert set(train_word_tokenizer(TEXTS, 4).get_vocab()) == {"[PAD]", "[UNK]", "a", "red"}
    assert set(train_word_tokenizer(TEXTS, 100, min_frequency=3).get_vocab()) == {"[PAD]", "[UNK]", "red"}


def test_captions_of_rows():
    rows = [{"captions": [{"text": "one"}, {"text": "two"}]}, {"captions": None}, {"captions": [{"text": "three"}]}]
    corpus = IterableDataset.from_generator(lambda: iter(rows))
    assert list(iterate_captions(corpus)) == [["one", "two"], [], ["three"]]
    assert list(iterate_captions(corpus, max_rows=1)) == [["one", "two"]]
