"""Trains the default word-level tokenizer from a corpus' captions.

python scripts/train_tokenizer.py --dataset data/narrated --output outputs/tokenizer --vocab_size 20000
"""

import argparse
import sys
from collections.abc import Iterable, Iterator

from datasets import IterableDataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from processing_fgmm.corpora_fgmm import CorpusError, load_corpus


def iterate_captions(corpus: IterableDataset, max_rows: int | None = None) -> Iterator[list[str]]:
    """The texts of each row's captions, media left unread."""
    captions = corpus.select_columns(["captions"])
    for row in captions if max_rows is None else captions.take(max_rows):
        yield [caption["text"] for caption in row["captions"] or []]


def train_word_tokenizer(texts: Iterable[str], vocab_size: int, min_frequency: int = 1) -> PreTrainedTokenizerFast:
    """A lower-casing tokenizer of whole words, the most frequent first.

    Args:
        texts: captions.
        vocab_size: the most words, with the two special ones.
        min_frequency: how often a word must occur.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=["[PAD]", "[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="folder of Parquet shards or a dataset on the Hub")
    parser.add_argument("--dataset_config", help="which of its official splits or folds, where it has several")
    parser.add_argument("--split", default="train")
    parser.add_argument("--output", required=True, help="folder for the tokenizer")
    parser.add_argument("--vocab_size", type=int, default=20000)
    parser.add_argument("--min_frequency", type=int, default=1)
    args = parser.parse_args()
    corpus = load_corpus(args.dataset, args.split, args.dataset_config)
    rows = tqdm(iterate_captions(corpus), unit="row")
    tokenizer = train_word_tokenizer((text for row in rows for text in row), args.vocab_size, args.min_frequency)
    tokenizer.save_pretrained(args.output)
    print(f"Saved a tokenizer of {len(tokenizer)} words in {args.output}.")


if __name__ == "__main__":
    try:
        main()
    except CorpusError as error:
        sys.exit(str(error))
