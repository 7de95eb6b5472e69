"""Converts the published MIL-NCE weights (S3D on HowTo100M, Miech et al., CVPR 2020) to an fgmm model and processor.

    python scripts/convert_milnce_checkpoint.py s3d_howto100m.pth s3d_dict.npy --output outputs/milnce

The two files are those of github.com/antoine77340/S3D_HowTo100M: the weights and the list of words. AutoModel and
AutoProcessor load the folder. Its `video_embeds` and `text_embeds` are the embeddings of the original, but
L2-normalised, as all of fgmm's are: equal to 1e-5 after the original's are divided by their norms. Its scores are
therefore cosines, and those of the original plain dot products. The original applies its linear layer to the mean over
positions; fgmm projects each position and takes the mean, which is the same.

The processor gives the inputs of the original: pixels in [0, 1], 32 frames of 224 pixels, 10 a second, and 16 words a
text. Unknown words are dropped, and shorter texts are filled up with word 0, which takes part in the maximum. There is
no audio encoder. The logit scale, which the original lacks, has its initial value.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("checkpoint", type=Path, help="s3d_howto100m.pth, the weights")
    parser.add_argument("vocabulary", type=Path, help="s3d_dict.npy, the list of words")
    parser.add_argument("--output", type=Path, required=True, help="folder for the model, new or empty")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.milnce import convert

    num_words = convert(args.checkpoint, args.vocabulary, args.output.resolve())
    print(f"Saved the model with its tokenizer of {num_words} words in {args.output}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
