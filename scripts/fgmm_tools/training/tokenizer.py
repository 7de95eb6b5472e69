"""Tokenizers of a corpus' words: the default one, trained on its captions, and words that others lack added to them."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from datasets import IterableDataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from modeling_fgmm import FgmmModel, FgmmTextConfig
from processing_fgmm.corpora_fgmm import usable_captions
from processing_fgmm.phrases_fgmm import find_content_words, find_unknown_words

from ..cli import UserError


def iterate_captions(corpus: IterableDataset, max_rows: int | None = None) -> Iterator[list[str]]:
    """Yields the texts of each row's captions that can be used; media are not read.

    Args:
        corpus: from [`load_corpus`].
        max_rows: rows read at most; None: all.
    """
    captions = corpus.select_columns(["captions"])
    for row in captions if max_rows is None else captions.take(max_rows):
        yield [caption["text"] for caption in usable_captions(row)]


def train_word_tokenizer(texts: Iterable[str], vocab_size: int, min_frequency: int = 1) -> PreTrainedTokenizerFast:
    """Trains a lower-casing tokenizer of whole words and punctuation marks, the most frequent first.

    Args:
        texts: captions.
        vocab_size: most words, with `[PAD]` and `[UNK]`.
        min_frequency: occurrences that a word needs to be known.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=["[PAD]", "[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def find_unknown(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> tuple[float, list[str]]:
    """The share of the words of texts that a tokenizer does not know, 0 to 1, and these words, the most frequent first.

    Function words do not count, for they are in no phrase.
    """
    counts = Counter(word for text in texts for word in find_content_words(text))
    unknown = find_unknown_words([word for word, _ in counts.most_common()], tokenizer)
    return sum(counts[word] for word in unknown) / max(counts.total(), 1), unknown


def has_whole_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether its tokens are whole words, and not also parts of words, by which others can spell new words."""
    model = tokenizer.backend_tokenizer.model
    if isinstance(model, models.BPE):  # of converted MIL-NCE weights: words alone, and no pairs to merge
        return not json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return isinstance(model, models.WordLevel)


def add_words(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], vocab_size: int, min_frequency: int = 1) -> int:
    """Adds the words and punctuation marks of texts to the end of a vocabulary of whole words, the most frequent first.

    Args:
        tokenizer: changed; all its words keep their ids.
        texts: captions.
        vocab_size: most tokens afterwards; a vocabulary that has more stays as it is.
        min_frequency: occurrences that a new word needs.

    Returns:
        how many were added.
    """
    backend, vocabulary = tokenizer.backend_tokenizer, tokenizer.get_vocab()
    counts = Counter(word for text in texts for word in split_as(backend, text))
    new = [word for word, count in counts.items() if count >= min_frequency and word not in vocabulary]
    new = sorted(new, key=lambda word: (-counts[word], word))[: max(vocab_size - len(vocabulary), 0)]
    state = json.loads(backend.to_str())
    first = vocabulary_size(tokenizer)
    state["model"]["vocab"] |= {word: first + index for index, word in enumerate(new)}
    backend.model = Tokenizer.from_str(json.dumps(state)).model
    return len(new)


def split_as(backend: Tokenizer, text: str) -> list[str]:
    """The words of a text as they stand in the vocabulary of a tokenizer of whole words."""
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is None:
        return [text]
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """The word vectors that a tokenizer's ids need, holes between them included."""
    return max(tokenizer.get_vocab().values()) + 1


def fit_word_embedding(model: FgmmModel, known: dict[str, int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Gives a model the word vectors for another tokenizer: those of tokens that both have are kept, bit for bit, the
    others initialised as the text encoder does.

    Args:
        model: with a text encoder; changed.
        known: the vocabulary of its own tokenizer.
        tokenizer: the other one.

    Raises:
        UserError: when an encoder of transformers would have to give the place of a token to another.
    """
    vocabulary, size = tokenizer.get_vocab(), vocabulary_size(tokenizer)
    if vocabulary == known:
        return
    old = model.get_input_embeddings()
    if model.config.text_config.model_type != FgmmTextConfig.model_type:
        if any(vocabulary.get(token) != index for token, index in known.items()):
            raise UserError(
                f"The text encoder {model.config.text_config.model_type} of {model.name_or_path!r} needs its own "
                "tokenizer; leave out --tokenizer."
            )
        model.resize_token_embeddings(max(size, old.num_embeddings))
        return
    new = nn.Embedding(size, old.embedding_dim, padding_idx=tokenizer.pad_token_id)
    model._init_weights(new)
    shared = [token for token in vocabulary if token in known]
    rows = [vocabulary[token] for token in shared]
    new.weight.data[rows] = old.weight.data[[known[token] for token in shared]]
    model.set_input_embeddings(new)
    model.config.text_config.vocab_size = size
