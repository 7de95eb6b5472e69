"""Turns the published MIL-NCE weights (S3D on HowTo100M, Miech et al., CVPR 2020) into an fgmm model and processor.

    python scripts/convert_milnce_checkpoint.py s3d_howto100m.pth s3d_dict.npy --output outputs/milnce

The two files are those of github.com/antoine77340/S3D_HowTo100M: the weights and the list of words. The folder is
loaded by AutoModel and AutoProcessor. Its `video_embeds` and `text_embeds` are the original's embeddings, but
L2-normalised, as all of fgmm's are: equal to 1e-5 after the original's are divided by their norms. So its scores are
cosines where the original's are plain dot products. The original takes the mean over positions and then its linear
layer; fgmm projects each position and then takes the mean, which is the same.

The processor gives the original's inputs: pixels in [0, 1], 32 frames of 224 pixels, 10 a second, and 16 words a text.
Unknown words are dropped, and what is short of 16 words is filled with word 0, which takes part in the maximum.
There is no audio encoder. The scale of the contrast, which the original lacks, starts anew.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import UserError, make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("checkpoint", type=Path, help="the weights, s3d_howto100m.pth")
    parser.add_argument("vocabulary", type=Path, help="the list of words, s3d_dict.npy")
    parser.add_argument("--output", type=Path, required=True, help="folder for the model, new or empty")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    output = args.output.resolve()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output} is there already; give another or delete it.")
    from fgmm_tools.milnce import (
        WORD_VECTORS,
        check_weights,
        load_weights,
        load_words,
        make_model,
        make_processor,
        save,
    )

    weights, words = load_weights(args.checkpoint), load_words(args.vocabulary)
    check_weights(weights, len(words))
    words = words[: len(weights[WORD_VECTORS]) - 1]
    save(make_model(weights), make_processor(words), output)
    print(f"Saved the model with its tokenizer of {len(words)} words in {output}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
