"""Classification by the protocols that papers report, over a corpus' official splits or folds."""

import argparse
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed

from modeling_fgmm import FgmmConfig, FgmmForAudioClassification, FgmmForVideoClassification, FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import list_configs, load_corpus

from ..cli import UserError
from ..models import load_model
from ..records import claim_output, describe_run, read_training_record, write_record
from .features import WindowReader, Windows, class_probabilities, embeddings, make_zero_shot, mean_features
from .finetuning import TrainingSettings, finetune
from .folds import HELD_OUT, Classes, Split, group_of, read_classes, read_fold, read_split
from .metrics import compute_metrics, count_confusions, draw_confusion_matrix, summarize_runs
from .probes import NUM_DRAWS, SHOTS, class_scores, few_shot_scores, fit_linear, neighbour_scores

CLASSIFIERS = {"video": FgmmForVideoClassification, "audio": FgmmForAudioClassification}
LONGEST_FIT = timedelta(hours=6)
TEMPLATES = {
    "video": ("{}", "a video of {}", "a person is {}", "this is {}"),
    "audio": ("{}", "the sound of {}", "a recording of {}", "you can hear {}"),
}


def choose_modality(wanted: str | None, modalities: list[str], columns: list[str], dataset: str) -> str:
    """What is classified: the wanted, else video (or images) where the corpus and the model have it, else sound.

    Raises:
        UserError: when the corpus or the model lacks it.
    """
    columns_of = {"video": {"video", "image"}, "audio": {"audio", "video"}}
    possible = [name for name in columns_of if name in modalities and columns_of[name] & set(columns)]
    if not possible or wanted not in (None, *possible):
        raise UserError(
            f"{(wanted or 'video or audio').capitalize()} cannot be classified: the model has encoders of "
            f"{', '.join(modalities)}, and {dataset} the columns {', '.join(columns)}."
        )
    return wanted or possible[0]


def linear(
    train: Windows, labels: dict, test: Windows, classes: Classes, args: argparse.Namespace
) -> Iterator[Windows]:
    """Scores of the test clips' windows by a linear classifier of the training clips' windows."""
    names = [name for name, windows in train.items() for _ in windows]
    targets = classes.targets([labels[name] for name in names])
    groups = [group_of(name) for name in names]
    features = np.concatenate(list(train.values()))
    try:
        classifier = fit_linear(features, targets, groups, args.classifier, classes.multi_label, args.seed)
    except ValueError as error:
        raise UserError(f"No linear classifier could be fitted: {str(error).splitlines()[0]}") from error
    yield {name: class_scores(classifier, windows, len(classes.names)) for name, windows in test.items()}


def few_shot(
    train: Windows, labels: dict, test: Windows, classes: Classes, args: argparse.Namespace
) -> Iterator[Windows]:
    """Scores of the test clips, for each draw of a few training clips."""
    targets = classes.targets([labels[name] for name in train])
    for scores in few_shot_scores(clip_embeddings(train), targets, clip_embeddings(test), args.seed):
        yield dict(zip(test, scores[:, None], strict=True))


def knn(train: Windows, labels: dict, test: Windows, classes: Classes, args: argparse.Namespace) -> Iterator[Windows]:
    """Scores of the test clips by the votes of the nearest training clips."""
    targets = classes.targets([labels[name] for name in train])
    scores = neighbour_scores(clip_embeddings(train), targets, clip_embeddings(test), args.num_neighbours)
    yield dict(zip(test, scores[:, None], strict=True))


def clip_embeddings(windows: Windows) -> np.ndarray:
    """(clips, D) the mean of each clip's windows, L2-normalised."""
    means = np.stack([embedding.mean(0) for embedding in windows.values()])
    return means / np.linalg.norm(means, axis=1, keepdims=True).clip(min=1e-12)


def train_classifier(
    accelerator: Accelerator, modality: str, processor: FgmmProcessor, train: Split, classes: Classes, args
) -> Callable[[dict], torch.Tensor]:
    """Fine-tunes a classifier: model inputs to (windows, classes) probabilities."""
    set_seed(args.seed)  # the same weights in every process, and for every fold
    config = {
        "id2label": dict(enumerate(classes.names)),
        "label2id": {name: index for index, name in enumerate(classes.names)},
        "problem_type": f"{'multi' if classes.multi_label else 'single'}_label_classification",
    }
    kind = CLASSIFIERS[modality]
    if args.random_init:
        classifier = kind(FgmmConfig.from_pretrained(args.model, **config))
    else:
        classifier = kind.from_pretrained(args.model, ignore_mismatched_sizes=True, **config)
    fields = TrainingSettings.__dataclass_fields__
    settings = TrainingSettings(**{name: getattr(args, name) for name in fields})
    classifier = finetune(accelerator, classifier, train.corpus, len(train.labels), processor, classes, settings)
    return partial(class_probabilities, classifier)


def format_table(runs: dict[str, dict], means: dict, spread: dict) -> str:
    """One line a run, their mean and their spread."""
    columns = list(spread)
    lines = [f"{'':24}" + "".join(f"{column:>14}" for column in columns)]
    for name, values in {**runs, "mean": means, "spread": spread}.items():
        cells = (f"{'':>14}" if values[column] is None else f"{values[column]:14.1f}" for column in columns)
        lines.append(f"{name:24}" + "".join(cells))
    return "\n".join(lines)


def describe_protocol(args: argparse.Namespace, modality: str, processor: FgmmProcessor, templates: list[str]) -> str:
    """One line for the record."""
    details = {
        "linear": f"few-shot logistic regression on {modality} embeddings, {SHOTS} clips a class, {NUM_DRAWS} draws"
        if args.few_shot
        else f"linear ({args.classifier}) on frozen {modality} features",
        "knn": f"{args.num_neighbours} nearest neighbours of {modality} embeddings",
        "zero_shot": f"zero-shot, {modality}, templates {', '.join(map(repr, templates))}",
        "finetune": f"{modality} encoder fine-tuned, {args.epochs} epochs, batch {args.batch_size}, learning rate "
        f"{args.learning_rate:g}, weight decay {args.weight_decay:g}",
    }[args.protocol]
    start = "random weights, " if args.random_init else ""
    frames = f" in {args.num_frames} frames" if args.num_frames else ""
    return f"{start}{details}; mean over {args.num_windows} windows of {processor.clip_seconds:g} s{frames}"


def choose_function(
    args: argparse.Namespace,
    model: FgmmModel,
    processor: FgmmProcessor,
    modality: str,
    classes: Classes,
    templates: list[str],
) -> Callable[[dict], torch.Tensor]:
    """What the protocols on a frozen model look at in windows."""
    if args.protocol == "zero_shot":
        return make_zero_shot(model, processor, modality, classes.names, templates)
    return partial(mean_features if args.protocol == "linear" and not args.few_shot else embeddings, model)


def score_fold(reader: WindowReader, train: Split | None, judged: Split, classes: Classes, args) -> Iterator[Windows]:
    """The scores of the judged clips, (windows, classes) each, on the main process; few-shot: of every draw.

    Raises:
        UserError: when none of the clips can be shown, or a linear classifier cannot be fitted.
    """
    probes = {"linear": few_shot if args.few_shot else linear, "knn": knn}
    shown = reader.read(judged, f"Showing {args.split}")
    trained = reader.read(train, "Showing train") if args.protocol in probes else None
    if not shown or trained == {}:
        raise UserError(f"No clip of the split {'train' if shown else args.split!r} can be shown; see above.")
    if not reader.accelerator.is_main_process:
        return
    if trained:
        yield from probes[args.protocol](trained, train.labels, shown, classes, args)
    else:
        yield shown


def evaluate_classification(args: argparse.Namespace) -> None:
    started = time.monotonic()
    if args.output:
        claim_output(args.output)
    names = args.dataset_config or list_configs(args.dataset)
    first = load_corpus(args.dataset, "train" if args.split == HELD_OUT else args.split, names[0])
    classes = read_classes(first, args.dataset)
    if args.few_shot and classes.multi_label:
        raise UserError(f"--few_shot draws clips of one class, but those of {args.dataset} may be of several.")
    model, processor = load_model(args.model)
    processor.clip_seconds = args.clip_seconds or processor.clip_seconds
    if args.num_frames:
        processor.video_processor.num_frames = args.num_frames
    modality = choose_modality(args.modality, model.config.modalities, first.column_names, args.dataset)
    templates = args.template or TEMPLATES[modality]
    if args.protocol == "zero_shot":
        folds = {name: (None, read_split(args.dataset, args.split, name)) for name in names}
    else:
        folds = {name: read_fold(args.dataset, name, args.split, classes, args.seed) for name in names}

    # The others wait while the main process fits the probes.
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_FIT)])
    set_seed(args.seed)
    if args.random_init:
        model = FgmmModel(model.config).eval()
    model.to(accelerator.device)
    make_reader = partial(WindowReader, processor, modality, accelerator, args)
    frozen = args.protocol != "finetune"
    if frozen:
        reader = make_reader(choose_function(args, model, processor, modality, classes, templates))

    draws, confusion = {}, 0  # few-shot: several results a fold, else one
    for name, (train, judged) in folds.items():
        if not frozen:
            reader = make_reader(train_classifier(accelerator, modality, processor, train, classes, args))
        for windows in score_fold(reader, train, judged, classes, args):
            draws.setdefault(name, []).append(compute_metrics(windows, judged.labels, classes))
            if not classes.multi_label:
                confusion += count_confusions(windows, judged.labels, classes)
    if accelerator.is_main_process:
        runs = {name: summarize_runs(results)[0] for name, results in draws.items()}
        means, spread = summarize_runs(list(runs.values()))
        print(format_table(runs, means, spread))
        if args.few_shot:
            deviations = [summarize_runs(results)[1]["top1"] for results in draws.values()]
            print(f"Between draws of the same split top1 varies by {np.mean(deviations):.1f}.")
        if args.output:
            record = {
                "model": args.model,
                "dataset": args.dataset,
                "split": args.split,
                "protocol": describe_protocol(args, modality, processor, templates),
                "metrics": means,
                "spread": spread,
                "runs": runs,
                **({"draws": draws} if args.few_shot else {}),
                "seed": args.seed,
                **describe_run(time.monotonic() - started),
                "training": None if args.random_init else read_training_record(args.model),
            }
            write_record(args.output, record)
            print(f"Wrote {args.output}.")
            if not classes.multi_label:
                draw_confusion_matrix(args.output.with_suffix(".png"), confusion, classes.names)
                print(f"Drew {args.output.with_suffix('.png')}.")
    accelerator.wait_for_everyone()
