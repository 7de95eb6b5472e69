import errno
from pathlib import Path

import pytest
import torch
import train_tokenizer
from datasets import IterableDataset
from helpers import run_main
from tiny_encoders import make_model, train_word_pieces
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fgmm_tools import milnce
from fgmm_tools.cli import UserError
from fgmm_tools.training.tokenizer import (
    add_words,
    find_unknown,
    fit_word_embedding,
    has_whole_words,
    iterate_captions,
    train_word_tokenizer,
    vocabulary_size,
)

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


def test_the_share_of_unknown_words():
    """Of the content words red, ball, red, box, red, balls; case and punctuation do not matter."""
    tokenizer = train_word_tokenizer(["a red box"], 100)
    assert find_unknown(tokenizer, TEXTS) == (pytest.approx(2 / 6), ["ball", "balls"])
    assert find_unknown(tokenizer, ["The RED box!"]) == (0, []) and find_unknown(tokenizer, []) == (0, [])


MORE = ["Push ups, push UPS!", "a red push-up", "up"]


def test_words_are_added_at_the_end_the_most_frequent_first(tmp_path):
    tokenizer = train_word_tokenizer(TEXTS, 100)
    before = dict(tokenizer.get_vocab())
    assert add_words(tokenizer, MORE, vocab_size=100) == 5 and len(tokenizer) == len(before) + 5
    added = {"push": 9, "up": 10, "ups": 11, "!": 12, "-": 13}
    assert tokenizer.get_vocab() == before | added
    assert tokenizer.tokenize("RED Push-Ups, zyzzyva") == ["red", "push", "-", "ups", ",", "[UNK]"]
    assert tokenizer(["push up"])["input_ids"] == [[9, 10]]
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == before | added and loaded(TEXTS + MORE) == tokenizer(TEXTS + MORE)
    assert (loaded.pad_token_id, loaded.unk_token_id) == (0, 1)


def test_rare_words_and_those_beyond_the_size_are_not_added():
    tokenizer = train_word_tokenizer(TEXTS, 100)
    assert add_words(tokenizer, MORE, 100, min_frequency=2) == 3
    assert set(tokenizer.get_vocab()) >= {"push", "up", "ups"} and "!" not in tokenizer.get_vocab()
    tokenizer = train_word_tokenizer(TEXTS, 100)
    assert add_words(tokenizer, MORE, 10) == 1 and tokenizer.get_vocab()["push"] == 9
    assert add_words(tokenizer, MORE, 3) == 0 and len(tokenizer) == 10
    assert add_words(tokenizer, [], 100) == 0


def test_words_are_added_to_a_converted_vocabulary():
    """Which drops unknown words, and where the last of equal words counts, so that numbers are missing."""
    tokenizer = milnce.make_tokenizer(["red", "ball", "red"])
    assert (len(tokenizer), vocabulary_size(tokenizer)) == (3, 4)
    assert add_words(tokenizer, ["The red box!"], 100) == 2 and vocabulary_size(tokenizer) == 6
    assert tokenizer("Red ball: the box?")["input_ids"] == [3, 2, tokenizer.get_vocab()["▁the"], 4]


def test_which_tokenizers_have_whole_words():
    assert has_whole_words(train_word_tokenizer(TEXTS, 100)) and has_whole_words(milnce.make_tokenizer(["red"]))
    assert not has_whole_words(train_word_pieces(TEXTS))


def test_word_vectors_of_known_words_are_kept_bit_for_bit(model, tokenizer):
    known = tokenizer.get_vocab()
    before = model.get_input_embeddings().weight.detach().clone()
    other = train_word_tokenizer([" ".join(f"word{i}" for i in range(400)), "eggs a eggs bowl loud"], 1000)
    assert sum(token in known and known[token] != index for token, index in other.get_vocab().items()) == 4
    fit_word_embedding(model, known, other)
    weights = model.get_input_embeddings().weight
    assert weights.shape == (len(other), 16) and model.config.text_config.vocab_size == len(other)
    new = []
    for token, index in other.get_vocab().items():
        if token in known:
            assert torch.equal(weights[index], before[known[token]])
        else:
            new.append(index)
    assert weights[new].std().item() == pytest.approx(0.3, rel=0.05) and weights.requires_grad
    assert not torch.isin(weights[new], before[1:]).any() and not weights[0].any()
    assert torch.isfinite(model.get_text_features(torch.tensor([[len(other) - 1]])).pooler_output).all()


def test_the_same_vocabulary_changes_nothing(model, tokenizer):
    embedding = model.get_input_embeddings()
    fit_word_embedding(model, tokenizer.get_vocab(), tokenizer)
    assert model.get_input_embeddings() is embedding


@pytest.mark.parametrize("kind", ["bert", "clip", "roberta"])
def test_encoders_of_transformers_get_rows_for_new_words(kind):
    model = make_model(text=kind)
    tokenizer = train_word_tokenizer([" ".join(f"word{i}" for i in range(117))], 1000)
    known, before = dict(tokenizer.get_vocab()), model.get_input_embeddings().weight.detach().clone()
    add_words(tokenizer, ["push"], 1000)
    fit_word_embedding(model, known, tokenizer)
    assert torch.equal(model.get_input_embeddings().weight, before)  # of 120 rows one was free
    add_words(tokenizer, ["up down left right"], 1000)
    fit_word_embedding(model, known, tokenizer)
    weights = model.get_input_embeddings().weight
    assert weights.shape[0] == model.config.text_config.vocab_size == len(tokenizer) == 124
    assert torch.equal(weights[:120], before) and weights[120:].any(1).all()
    with pytest.raises(UserError, match="needs its own tokenizer; leave out --tokenizer"):
        fit_word_embedding(model, known, train_word_tokenizer(["word1 word1 word0"], 10))


def test_the_command_writes_a_tokenizer_whole_or_not_at_all(narrated, tmp_path, monkeypatch):
    output = tmp_path / "deep" / "tokenizer"

    def save_half(tokenizer, folder):
        (Path(folder) / "tokenizer.json").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(PreTrainedTokenizerFast, "save_pretrained", save_half)
        run_main(monkeypatch, train_tokenizer, "--dataset", narrated, "--output", output)
    assert list(output.parent.iterdir()) == []
    run_main(monkeypatch, train_tokenizer, "--dataset", narrated, "--output", output)
    assert len(AutoTokenizer.from_pretrained(output)) > 20 and list(output.parent.iterdir()) == [output]
