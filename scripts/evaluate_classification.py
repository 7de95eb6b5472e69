r"""Classification of the videos, images or sounds of a prepared corpus, by the protocols that papers report.

    python scripts/evaluate_classification.py --model outputs/fgmm-tiny --dataset data/esc10 \
        --protocol linear --output results.json
    python scripts/evaluate_classification.py --model outputs/fgmm-tiny --dataset data/ucf101 \
        --dataset_config split1 --protocol finetune --epochs 20
    accelerate launch --multi_gpu scripts/evaluate_classification.py --model outputs/fgmm-small --dataset data/k400 \
        --protocol linear
    python scripts/evaluate_classification.py --model outputs/fgmm-tiny --dataset embeddings/esc10 --protocol knn

The official splits or folds are the corpus' configurations. All of them are run, and their mean and spread reported,
unless --dataset_config names some.

linear     logistic regression (or --classifier svm) on the encoder's features, averaged over regions, of several
           windows a clip; the regularisation is chosen on the training split alone. --few_shot: on the embeddings of 8
           training clips a class, 10 draws, as MTEB's classification tasks.
knn        the nearest training clips by the cosine of the embeddings vote for their classes
zero_shot  the class names, put into phrase templates, are compared with the clips as a text would be
finetune   the whole encoder and a linear layer are trained

A clip's score is the mean over its windows. An evaluated clip that is undecodable (damaged, or silent where sound is
classified) counts as an error; a training clip is left out. --random_init gives the floor of each protocol, and with
finetune supervised training from scratch. All processes that accelerate launch starts encode, and for protocols on a
frozen model the figures are the same for any number of them. --dataset may be a folder of scripts/embed_corpus.py,
but for finetune.
"""

import argparse
from dataclasses import MISSING, fields
from pathlib import Path

from fgmm_tools.classification.settings import CLASSIFIERS, HELD_OUT, MODALITIES, PROTOCOLS, ClassificationSettings
from fgmm_tools.cli import at_least, make_parser, run_command, seed


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", required=True, help="model folder or name on the Hub")
    parser.add_argument("--dataset", required=True, help="folder of Parquet shards or a dataset on the Hub")
    parser.add_argument("--protocol", required=True, choices=PROTOCOLS, help="how clips are classified, see above")
    parser.add_argument("--dataset_config", nargs="+", help="official splits or folds, where not all of them")
    parser.add_argument(
        "--split",
        help=f"that is evaluated; {HELD_OUT}: a fifth of the training split, not trained on, to choose settings by",
    )
    parser.add_argument("--modality", choices=MODALITIES, help="where video (or images) is not what is meant")
    parser.add_argument("--random_init", action="store_true", help="the model's architecture with random weights")
    parser.add_argument("--num_windows", type=at_least(1), help="windows of each clip; none: 4, or all embedded ones")
    parser.add_argument("--clip_seconds", type=float, help="length of a window in s, where not the model's own")
    parser.add_argument("--num_frames", type=at_least(1), help="frames of a window, where not the model's own")
    parser.add_argument("--classifier", choices=CLASSIFIERS, help="of linear")
    parser.add_argument("--few_shot", action="store_true", help="of linear: 8 training clips a class, 10 draws")
    parser.add_argument("--num_neighbours", type=at_least(1), help="of knn: training clips that vote")
    parser.add_argument(
        "--template", dest="templates", action="append", help="of zero_shot, with {} for the class; may be repeated"
    )
    parser.add_argument("--epochs", type=at_least(1), help="of finetune: passes over the training clips")
    parser.add_argument("--learning_rate", type=float, help="of finetune: AdamW's, after the warm-up")
    parser.add_argument("--weight_decay", type=float, help="of finetune: AdamW's, of matrices and kernels")
    parser.add_argument("--batch_size", type=at_least(2), help="windows encoded at once, clips a training step")
    parser.add_argument("--num_workers", type=at_least(0), help="decoding processes")
    parser.add_argument("--seed", type=seed, help="of random weights, draws and training")
    parser.add_argument("--output", type=Path, help="JSON file; the confusion matrix is drawn beside it")
    defaults = {field.name: field.default for field in fields(ClassificationSettings)}
    parser.set_defaults(**{name: value for name, value in defaults.items() if value is not MISSING})
    args = parser.parse_args()
    if args.output and args.output.suffix == ".png":
        parser.error("--output is the JSON file; the confusion matrix is drawn beside it, with the ending .png")
    return args


def main(args: argparse.Namespace) -> None:
    # Before the imports, which take seconds: what does not fit is refused at once.
    settings = ClassificationSettings(
        **{field.name: getattr(args, field.name) for field in fields(ClassificationSettings)}
    )

    from fgmm_tools.records import claim_results, describe_run, read_training_record, write_record

    if args.output:
        claim_results(args.output, ".png")

    import time

    from fgmm_tools.classification.evaluation import evaluate_classification
    from fgmm_tools.classification.metrics import draw_confusion_matrix

    started = time.monotonic()
    results = evaluate_classification(args.model, args.dataset, settings, args.dataset_config)
    if results is None:
        return  # the main process reports
    print(results.format_table())
    if args.output:
        means, spread = results.summarize()
        record = {
            "model": args.model,
            "dataset": args.dataset,
            "split": args.split,
            "protocol": results.protocol,
            "metrics": means,
            "spread": spread,
            "runs": results.runs,
            **({"draws": results.draws} if args.few_shot else {}),
            "seed": args.seed,
            **describe_run(time.monotonic() - started),
            "training": None if args.random_init else read_training_record(args.model),
        }
        write_record(args.output, record)
        print(f"Wrote {args.output}.")
        if results.confusion is not None:
            draw_confusion_matrix(args.output.with_suffix(".png"), results.confusion, results.class_names)
            print(f"Drew {args.output.with_suffix('.png')}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
