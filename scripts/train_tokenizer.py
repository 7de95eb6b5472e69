"""Trains the default word-level tokenizer from a corpus' captions.

python scripts/train_tokenizer.py --dataset data/narrated --output outputs/tokenizer --vocab_size 20000
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import add_corpus_arguments, at_least, make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_corpus_arguments(parser, split="train")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tokenizer")
    parser.add_argument("--vocab_size", type=at_least(3), default=20000, help="most words, with the two special ones")
    parser.add_argument(
        "--min_frequency", type=at_least(1), default=1, help="occurrences that a word needs to be known"
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from fgmm_tools.records import whole_files
    from fgmm_tools.training.tokenizer import iterate_captions, train_word_tokenizer
    from processing_fgmm.corpora_fgmm import load_corpus

    corpus = load_corpus(args.dataset, args.split, args.dataset_config)
    rows = tqdm(iterate_captions(corpus), unit="row")
    tokenizer = train_word_tokenizer((text for row in rows for text in row), args.vocab_size, args.min_frequency)
    with whole_files(args.output) as partial:
        tokenizer.save_pretrained(partial)
    print(f"Saved a tokenizer of {len(tokenizer)} words in {args.output}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
