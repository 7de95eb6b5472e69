"""The default word-level tokenizer, trained on the captions of a corpus."""

from collections.abc import Iterable, Iterator

from datasets import IterableDataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from processing_fgmm.corpora_fgmm import usable_captions


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
