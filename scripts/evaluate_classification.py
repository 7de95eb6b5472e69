"""Classification of the videos, images or sounds of a prepared corpus, by the protocols that papers report.

    accelerate launch scripts/evaluate_classification.py --model outputs/fgmm-tiny --dataset data/esc10 \
        --protocol linear --output results.json
    accelerate launch scripts/evaluate_classification.py --model outputs/fgmm-tiny --dataset data/ucf101 \
        --dataset_config split1 --protocol finetune --epochs 20

The official splits or folds are the corpus' configurations. All of them are run, and their mean and spread reported,
unless --dataset_config names some.

linear     logistic regression (or --classifier svm) on the encoder's features, averaged over regions, of several
           windows a clip; the regularisation is chosen on the training split alone. --few_shot: on the embeddings of 8
           training clips a class, 10 draws, as MTEB's classification tasks.
knn        the nearest training clips by the cosine of the embeddings vote for their classes
zero_shot  the class names, put into phrase templates, are compared with the clips as a text would be
finetune   the whole encoder and a linear layer are trained

A clip's score is the mean over its windows. A test clip that cannot be shown (damaged, or silent where sound is
classified) counts as an error; a training clip is left out. --random_init gives the floor of each protocol, and with
finetune supervised training from scratch.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import at_least, make_parser, run_command

# In place of a split's name: a fifth of the training split, which is then not trained on.
HELD_OUT = "held_out"


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", required=True, help="model folder or name on the Hub")
    parser.add_argument("--dataset", required=True, help="folder of Parquet shards or a dataset on the Hub")
    parser.add_argument(
        "--protocol", required=True, choices=("linear", "knn", "zero_shot", "finetune"), help="see above"
    )
    parser.add_argument("--dataset_config", nargs="+", help="official splits or folds; none: all of them")
    parser.add_argument(
        "--split",
        default="test",
        help=f"what is reported on; {HELD_OUT}: a fifth of the training split, not trained on, to choose settings by",
    )
    parser.add_argument(
        "--modality", choices=("video", "audio"), help="what is classified; none: video or images where there are any"
    )
    parser.add_argument("--random_init", action="store_true", help="the model's architecture with random weights")
    parser.add_argument("--num_windows", type=at_least(1), default=4, help="windows of each clip")
    parser.add_argument("--clip_seconds", type=float, help="length of a window, s; none: the model's own")
    parser.add_argument("--num_frames", type=at_least(1), help="frames of a window; none: the model's own")
    parser.add_argument("--classifier", choices=("logistic", "svm"), default="logistic", help="classifier of linear")
    parser.add_argument("--few_shot", action="store_true", help="of linear: 8 training clips a class, 10 draws")
    parser.add_argument("--num_neighbours", type=at_least(1), default=20, help="training clips that vote in knn")
    parser.add_argument(
        "--template", action="append", help="phrase of zero_shot, with {} for the class; may be repeated"
    )
    parser.add_argument("--epochs", type=at_least(1), default=60, help="passes over the training split in finetune")
    parser.add_argument("--learning_rate", type=float, default=2e-3, help="of AdamW in finetune, after warm-up")
    parser.add_argument("--weight_decay", type=float, default=0.05, help="of matrices and kernels in finetune")
    parser.add_argument("--batch_size", type=at_least(2), default=32, help="clips a step, windows encoded at once")
    parser.add_argument("--num_workers", type=at_least(0), default=2, help="decoding processes")
    parser.add_argument("--seed", type=int, default=0, help="of random weights, draws, crops and order")
    parser.add_argument("--output", type=Path, help="JSON file; the confusion matrix is drawn beside it")
    args = parser.parse_args()
    if args.few_shot and args.protocol != "linear":
        parser.error("--few_shot is for --protocol linear")
    if args.few_shot and args.classifier == "svm":
        parser.error("--few_shot is by logistic regression; leave out --classifier svm")
    if args.protocol == "zero_shot" and (args.random_init or args.split == HELD_OUT):
        parser.error("zero_shot trains nothing: --random_init and --split held_out are for the other protocols")
    if any("{}" not in template for template in args.template or []):
        parser.error("--template must hold {}, where the class name goes")
    if args.output and args.output.suffix == ".png":
        parser.error("--output is the JSON file; the confusion matrix is drawn beside it, with the ending .png")
    if args.clip_seconds is not None and args.clip_seconds <= 0:
        parser.error("--clip_seconds must be positive")
    if args.learning_rate <= 0 or args.weight_decay < 0:
        parser.error("--learning_rate must be positive, and --weight_decay not negative")
    return args


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.classification.evaluation import evaluate_classification

    evaluate_classification(args)


if __name__ == "__main__":
    run_command(parse_arguments, main)
