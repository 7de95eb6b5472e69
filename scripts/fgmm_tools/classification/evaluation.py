"""Classification by the protocols that papers report, over a corpus' official splits or folds."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed

from modeling_fgmm import FgmmForAudioClassification, FgmmForVideoClassification, FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import list_configs, load_corpus

from ..cli import UserError
from ..embedding.stored import StoredEmbeddings, open_embeddings
from ..models import load_model, with_random_weights
from .features import (
    SplitEncoder,
    StoredSplits,
    Windows,
    class_probabilities,
    embeddings,
    make_zero_shot,
    mean_features,
    stored_scores,
    stored_values,
)
from .finetuning import finetune
from .folds import Classes, Split, read_classes, read_fold, read_split
from .metrics import compute_metrics, count_confusions, summarize_runs
from .probes import NUM_DRAWS, SHOTS, class_scores, few_shot_scores, fit_linear, neighbour_scores
from .settings import HELD_OUT, NUM_WINDOWS, ClassificationSettings

CLASSIFIERS = {"video": FgmmForVideoClassification, "audio": FgmmForAudioClassification}
# The other processes wait while the main one fits the probes.
LONGEST_FIT = timedelta(hours=6)
TEMPLATES = {
    "video": ("{}", "a video of {}", "a person is {}", "this is {}"),
    "audio": ("{}", "the sound of {}", "a recording of {}", "you can hear {}"),
}
# Of dual encoders: for actions a quarter of CLIP's prompts of UCF101, for images its simplest one, for sounds CLAP's.
PROMPTS = {
    "video": tuple(
        f"a {kind} of a person {doing}{{}}."
        for doing in ("", "using ", "doing ", "during ", "performing ", "practicing ")
        for kind in ("photo", "video")
    ),
    "image": ("a photo of a {}.",),
    "audio": ("This is a sound of {}.",),
}


@dataclass
class ClassificationResults:
    """What an evaluation measured.

    Args:
        protocol: how, in one line.
        class_names: in the order of their labels.
        draws: of each configuration the metrics of each draw of training clips: several with few_shot, else one.
        confusion: (true classes, predicted classes) clips, of all draws, ties shared; None where a clip may be of
            several classes.
    """

    protocol: str
    class_names: list[str]
    draws: dict[str, list[dict]]
    confusion: np.ndarray | None

    @property
    def runs(self) -> dict[str, dict]:
        """The metrics of each configuration, the mean over its draws."""
        return {name: summarize_runs(metrics)[0] for name, metrics in self.draws.items()}

    def summarize(self) -> tuple[dict, dict]:
        """The mean of the metrics over the configurations, and their spread; see [`summarize_runs`]."""
        return summarize_runs(list(self.runs.values()))

    def format_table(self) -> str:
        """One line a configuration, their mean and their spread; of several draws how far they vary; ties."""
        means, spread = self.summarize()
        lines = [f"{'':24}" + "".join(f"{column:>14}" for column in spread)]
        for name, values in {**self.runs, "mean": means, "spread": spread}.items():
            cells = (f"{'':>14}" if values[column] is None else f"{values[column]:14.1f}" for column in spread)
            lines.append(f"{name:24}" + "".join(cells))
        if any(len(metrics) > 1 for metrics in self.draws.values()):
            deviation = np.mean([summarize_runs(metrics)[1]["top1"] for metrics in self.draws.values()])
            lines.append(f"Between draws of the same split top1 varies by {deviation:.1f}.")
        tied, clips = (sum(run.get(name, 0) for run in self.runs.values()) for name in ("num_tied", "num_clips"))
        if tied:
            lines.append(
                f"{tied:g} of {clips:g} clips have the same highest score for their class and others; each counts as "
                "the chance of a random choice among these."
            )
        return "\n".join(lines)


def evaluate_classification(
    model_name: str, dataset: str, settings: ClassificationSettings, config_names: list[str] | None = None
) -> ClassificationResults | None:
    """Classifies the clips of each configuration of a corpus, on as many processes as were launched.

    Args:
        model_name: a folder or a model on the Hub.
        dataset: a folder of Parquet shards, a dataset on the Hub, or a folder of embeddings.
        config_names: the official splits or folds; None: all of them.

    Returns:
        the results on the main process, None on the others.

    Raises:
        CorpusError: when the corpus or a split of it does not exist.
        UserError: when the model cannot be loaded or classify these clips, a split cannot be used, training fails, or
            stored embeddings do not fit the model and settings.
    """
    config_names = config_names or list_configs(dataset)
    source = (dataset, "train" if settings.split == HELD_OUT else settings.split, config_names[0])
    stored = open_embeddings(*source)
    corpus = stored.open_rows() if stored else load_corpus(*source)
    classes = read_classes(corpus, dataset)
    if settings.few_shot and classes.multi_label:
        raise UserError(f"few_shot draws clips of one class, but those of {dataset} may be of several.")
    model, processor = load_model(model_name)
    if stored:
        check_stored(stored, settings)
        stored.check_model(model, processor)
    set_windows(processor, settings)
    columns = stored.manifest["media"] if stored else corpus.column_names
    modality = choose_modality(settings.modality, model.config.modalities, columns, dataset)
    folds = {name: read_clips(dataset, name, classes, settings) for name in config_names}

    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_FIT)])
    if settings.random_init:
        model = with_random_weights(model, settings.seed)
    model.to(accelerator.device)
    make_encoder = partial(
        SplitEncoder, processor=processor, modality=modality, accelerator=accelerator, settings=settings
    )
    encoder = None
    templates = settings.templates or choose_templates(model, modality, columns)
    if stored:
        encoder = read_stored(model, processor, modality, classes, settings, templates, accelerator)
    elif settings.protocol != "finetune":
        encoder = make_encoder(choose_encode(model, processor, modality, classes, settings, templates))

    draws = {}
    confusion = None if classes.multi_label else np.zeros(2 * [len(classes.names)])
    for name, (train, evaluated) in folds.items():
        if settings.protocol == "finetune":
            classifier = train_classifier(model, accelerator, modality, processor, train, classes, settings)
            encoder = make_encoder(partial(class_probabilities, classifier))
        for scores in score_clips(encoder, train, evaluated, classes, settings):
            draws.setdefault(name, []).append(compute_metrics(scores, evaluated.labels, classes))
            if confusion is not None:
                confusion += count_confusions(scores, evaluated.labels, classes)
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return None
    protocol = describe_protocol(settings, modality, processor, templates, stored)
    return ClassificationResults(protocol, classes.names, draws, confusion)


def check_stored(stored: StoredEmbeddings, settings: ClassificationSettings) -> None:
    """Raises a UserError where stored embeddings cannot be classified by the settings."""
    if settings.protocol == "finetune":
        raise UserError(f"{stored.folder} has no media, which finetune trains on; give the corpus, not embeddings.")
    if settings.protocol == "linear" and not settings.few_shot and not stored.settings.with_features:
        raise UserError(
            f"{stored.folder} has no features, which linear takes; give another protocol, or embed the corpus with "
            "--with_features."
        )
    if settings.random_init:
        raise UserError(f"{stored.folder} was not embedded with random weights; give the corpus, or no --random_init.")
    if settings.clip_seconds or settings.num_frames:
        raise UserError(f"{stored.folder} has windows of the model's own; leave out --clip_seconds and --num_frames.")
    stored.check_num_windows(settings.num_windows)


def read_stored(
    model: FgmmModel,
    processor: FgmmProcessor,
    modality: str,
    classes: Classes,
    settings: ClassificationSettings,
    templates: Sequence[str],
    accelerator: Accelerator,
) -> StoredSplits:
    """What gives the protocols their values from stored embeddings; see [`choose_encode`]."""
    if settings.protocol == "zero_shot":
        score = make_zero_shot(model, processor, modality, classes.names, templates)
        return StoredSplits(stored_scores(score, modality, model.device), modality, accelerator, True)
    part = "features" if settings.protocol == "linear" and not settings.few_shot else "embeds"
    return StoredSplits(stored_values(modality, part), modality, accelerator, False)


def set_windows(processor: FgmmProcessor, settings: ClassificationSettings) -> None:
    """Sets the length and the frames of a window, where they are not to be the model's own."""
    if settings.clip_seconds:
        processor.clip_seconds = settings.clip_seconds
    if settings.num_frames:
        processor.video_processor.num_frames = settings.num_frames


def choose_modality(wanted: str | None, modalities: list[str], columns: list[str], dataset: str) -> str:
    """What is classified: `wanted`, else video (or images) where the corpus and the model have it, else audio.

    Args:
        modalities: of the model.
        columns: of the corpus `dataset`.

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


def read_clips(
    dataset: str, config_name: str, classes: Classes, settings: ClassificationSettings
) -> tuple[Split | None, Split]:
    """The clips of a configuration to train on, None for zero-shot, and those to evaluate; raises as [`read_fold`]."""
    if settings.protocol == "zero_shot":
        return None, read_split(dataset, settings.split, config_name)
    return read_fold(dataset, config_name, settings.split, classes, settings.seed)


def choose_templates(model: FgmmModel, modality: str, columns: list[str]) -> tuple[str, ...]:
    """The templates of zero-shot classification that are usual for a model, on a corpus with these columns."""
    if modality not in model.config.dual_modalities:
        return TEMPLATES[modality]
    return PROMPTS["image" if modality == "video" and "video" not in columns else modality]


def choose_encode(
    model: FgmmModel,
    processor: FgmmProcessor,
    modality: str,
    classes: Classes,
    settings: ClassificationSettings,
    templates: Sequence[str],
) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    """What the protocols on a frozen model make of B windows: (B, classes) scores for zero-shot, else (B, C) features
    or (B, D) embeddings for the probes."""
    if settings.protocol == "zero_shot":
        return make_zero_shot(model, processor, modality, classes.names, templates)
    return partial(mean_features if settings.protocol == "linear" and not settings.few_shot else embeddings, model)


def train_classifier(
    model: FgmmModel,
    accelerator: Accelerator,
    modality: str,
    processor: FgmmProcessor,
    train: Split,
    classes: Classes,
    settings: ClassificationSettings,
) -> FgmmForVideoClassification | FgmmForAudioClassification:
    """Fine-tunes a classifier that is initialised from the model, or with random weights."""
    set_seed(settings.seed)  # the same weights in every process, and for every fold
    config = copy.deepcopy(model.config)
    labels = {
        "id2label": dict(enumerate(classes.names)),
        "label2id": {name: index for index, name in enumerate(classes.names)},
        "problem_type": f"{'multi' if classes.multi_label else 'single'}_label_classification",
    }
    config.update(labels)
    kind = CLASSIFIERS[modality]
    if settings.random_init:
        classifier = kind(config)
    else:
        classifier = kind.from_pretrained(None, config=config, state_dict=model.state_dict())
    return finetune(accelerator, classifier, processor, train, classes, settings)


def score_clips(
    encoder: SplitEncoder | StoredSplits,
    train: Split | None,
    evaluated: Split,
    classes: Classes,
    settings: ClassificationSettings,
) -> Iterator[Windows]:
    """(windows, classes) scores of each evaluated clip, on the main process alone; with few_shot of every draw.

    Raises:
        UserError: when none of the clips can be decoded, or a linear classifier cannot be fitted.
    """
    probes = {"linear": few_shot_probe if settings.few_shot else linear_probe, "knn": neighbour_probe}
    probe = probes.get(settings.protocol)
    windows = encoder.encode_split(evaluated, f"Encoding {settings.split}")
    train_windows = encoder.encode_split(train, "Encoding train") if probe else None
    if not windows or train_windows == {}:
        raise UserError(f"No clip of the split {'train' if windows else settings.split!r} can be decoded; see above.")
    if not encoder.accelerator.is_main_process:
        return
    if probe:
        yield from probe(train_windows, train, windows, classes, settings)
    else:
        yield windows


def linear_probe(
    train: Windows, split: Split, evaluated: Windows, classes: Classes, settings: ClassificationSettings
) -> Iterator[Windows]:
    """Scores of each evaluated clip's windows by a linear classifier of the training clips' windows.

    Args:
        train, evaluated: (windows, C) features of each clip.
        split: of the training clips.
    """
    names = [name for name, windows in train.items() for _ in windows]
    targets = classes.targets([split.labels[name] for name in names])
    groups = [split.groups[name] for name in names]
    features = np.concatenate(list(train.values()))
    try:
        classifier = fit_linear(features, targets, groups, settings.classifier, classes.multi_label, settings.seed)
    except ValueError as error:
        raise UserError(f"No linear classifier could be fitted: {str(error).splitlines()[0]}") from error
    yield {name: class_scores(classifier, windows, len(classes.names)) for name, windows in evaluated.items()}


def few_shot_probe(
    train: Windows, split: Split, evaluated: Windows, classes: Classes, settings: ClassificationSettings
) -> Iterator[Windows]:
    """Scores of the evaluated clips for each draw of a few training clips; arguments as of [`neighbour_probe`]."""
    targets = classes.targets([split.labels[name] for name in train])
    for scores in few_shot_scores(clip_embeddings(train), targets, clip_embeddings(evaluated), settings.seed):
        yield dict(zip(evaluated, scores[:, None], strict=True))


def neighbour_probe(
    train: Windows, split: Split, evaluated: Windows, classes: Classes, settings: ClassificationSettings
) -> Iterator[Windows]:
    """Scores of the evaluated clips by the votes of the nearest training clips.

    Args:
        train, evaluated: (windows, D) embeddings of each clip.
        split: of the training clips.
    """
    targets = classes.targets([split.labels[name] for name in train])
    scores = neighbour_scores(clip_embeddings(train), targets, clip_embeddings(evaluated), settings.num_neighbours)
    yield dict(zip(evaluated, scores[:, None], strict=True))


def clip_embeddings(windows: Windows) -> np.ndarray:
    """(clips, D) the mean of each clip's windows, L2-normalised."""
    means = np.stack([embedding.mean(0) for embedding in windows.values()])
    return means / np.linalg.norm(means, axis=1, keepdims=True).clip(min=1e-12)


def describe_protocol(
    settings: ClassificationSettings,
    modality: str,
    processor: FgmmProcessor,
    templates: Sequence[str],
    stored: StoredEmbeddings | None,
) -> str:
    """One line for the results file."""
    templates = ", ".join(map(repr, templates))
    details = {
        "linear": f"few-shot logistic regression on {modality} embeddings, {SHOTS} clips a class, {NUM_DRAWS} draws"
        if settings.few_shot
        else f"linear ({settings.classifier}) on frozen {modality} features",
        "knn": f"{settings.num_neighbours} nearest neighbours of {modality} embeddings",
        "zero_shot": f"zero-shot, {modality}, templates {templates}",
        "finetune": f"{modality} encoder fine-tuned, {settings.epochs} epochs, batch {settings.batch_size}, learning "
        f"rate {settings.learning_rate:g}, weight decay {settings.weight_decay:g}",
    }[settings.protocol]
    start = "random weights, " if settings.random_init else ""
    frames = f" in {settings.num_frames} frames" if settings.num_frames else ""
    number = (stored.settings.num_windows or "all") if stored else settings.num_windows or NUM_WINDOWS
    windows = f"{number} windows of {processor.clip_seconds:g} s{frames}"
    return f"{start}{details}; mean over {windows}{f', {stored.describe()}' if stored else ''}"
