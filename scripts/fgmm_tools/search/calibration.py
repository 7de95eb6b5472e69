"""What chance gives on an index: the score that a query which nothing fits reaches, and how much speech is worth."""

import itertools
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.phrases_fgmm import find_unknown_words

from ..records import write_whole
from .candidates import ScoredWindow, Windows
from .catalog import Catalog
from .queries import make_text_queries
from .settings import SearchSettings

# Windows of the background, at random, in each modality.
BACKGROUND_WINDOWS = 256
# Texts about things that are hardly in anyone's files, and the share of them that may be taken for a match.
NUM_FOREIGN = 199
FALSE_POSITIVES = 0.05
# That this holds although the texts are few.
CONFIDENCE = 0.9
# Captions whose own windows tell how much speech nearby is worth; with fewer the starting weight is kept.
NUM_CUES, LEAST_CUES = 200, 20
# Standard deviations of `seen` that all words of a query, spoken, are worth before anything is known; and how many
# captions that knowledge counts for.
SPOKEN_WEIGHT, PRIOR_CUES = 3.0, 10
MAX_SPOKEN_WEIGHT = 12.0

WHO = (
    "an astronaut", "a surgeon", "a glassblower", "a sumo wrestler", "a herd of zebras", "a beekeeper", "a puppeteer",
    "a lighthouse keeper", "two chess players", "a parachutist", "a polar bear", "a brass band", "a blacksmith",
    "an octopus", "a ballet dancer", "a fire brigade", "a judge in a wig", "a flock of flamingos", "a snake charmer",
    "an ice hockey team",
)  # fmt: skip
DOES = (
    "repairs a pipe organ", "folds a paper crane", "crosses a rope bridge", "shears a sheep", "opens a treasure chest",
    "tunes a harp", "unloads a cargo ship", "carves a marble statue", "launches a weather balloon", "picks olives",
    "decorates a wedding cake", "steers a gondola", "inspects a wind turbine", "juggles burning torches",
    "feeds a giraffe", "weaves a carpet", "digs up a dinosaur bone", "ploughs a rice field",
)  # fmt: skip
WHERE = (
    "on a glacier", "inside a submarine", "in a crowded bazaar", "on the roof of a cathedral", "beside a volcano",
    "in a courtroom", "under a waterfall", "at a carnival", "in a salt mine", "on an oil platform", "in a rainforest",
    "at the opera", "in a planetarium", "on a tram",
)  # fmt: skip


@dataclass(frozen=True)
class Calibration:
    """What was measured on a state of an index.

    background: ids of windows by modality. threshold: of scores; of queries that nothing fits at most FALSE_POSITIVES
    have a higher one. spoken_weight: of speech, in standard deviations. num_windows, num_cues: of the index then.
    """

    background: dict[str, list[int]]
    threshold: float
    spoken_weight: float
    num_windows: int
    num_cues: int


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Writes a calibration as JSON."""
    write_whole(path, json.dumps(asdict(calibration)) + "\n")


def read_calibration(path: Path) -> Calibration:
    """What [`write_calibration`] wrote."""
    return Calibration(**json.loads(path.read_text()))


def is_fresh(calibration: Calibration, catalog: Catalog) -> bool:
    """Whether an index has changed little since it was calibrated, and its background is still there."""
    _, num_windows, _ = catalog.count()
    ids = [window for of_modality in calibration.background.values() for window in of_modality]
    pairs = ((num_windows, calibration.num_windows), (catalog.count_cues(), calibration.num_cues))
    return len(catalog.get_windows(ids)) == len(set(ids)) and all(
        abs(new - old) <= 0.1 * max(old, 1) for new, old in pairs
    )


def choose_background(catalog: Catalog, modalities: list[str]) -> dict[str, list[int]]:
    """Windows at random, of each modality."""
    chosen = {}
    for modality in modalities:
        ids = catalog.window_ids(modality)
        picked = np.random.default_rng(0).permutation(len(ids))[:BACKGROUND_WINDOWS]
        chosen[modality] = ids[np.sort(picked)].tolist()
    return chosen


def calibrate(model: FgmmModel, processor: FgmmProcessor, windows: Windows, background: dict) -> Calibration:
    """Measures the threshold and the weight of speech; a model without a text encoder needs neither.

    Args:
        windows: of the index, with this background.
    """
    _, num_windows, _ = windows.catalog.count()
    num_cues = windows.catalog.count_cues()
    if "text" not in model.config.modalities:
        return Calibration(background, 0.0, SPOKEN_WEIGHT, num_windows, num_cues)
    weight = fit_spoken_weight(model, processor, windows)
    queries = make_text_queries(model, processor, foreign_texts(processor), list(windows.vectors))
    candidates = SearchSettings().candidates
    scores = [top_score(windows.rank(query, candidates, weight)) for query in queries]
    return Calibration(background, tolerance_bound(scores), weight, num_windows, num_cues)


def top_score(ranked: list[ScoredWindow]) -> float:
    """The highest score; 0, that of the background, where nothing was found."""
    return ranked[0].score if ranked else 0.0


def tolerance_bound(scores: list[float]) -> float:
    """The number that at most FALSE_POSITIVES of all scores of the same kind exceed, with probability CONFIDENCE.

    It is one of the scores in their order, whatever their distribution (Wilks, 1941): with n of them the r-th has at
    least 1 - FALSE_POSITIVES of the distribution below it unless r or more of n draws are below that quantile. Of too
    few scores it is the highest.
    """
    number, share, below = len(scores), 1 - FALSE_POSITIVES, 0.0
    for rank in range(1, number + 1):
        below += math.comb(number, rank - 1) * share ** (rank - 1) * (1 - share) ** (number - rank + 1)
        if below >= CONFIDENCE:
            return sorted(scores)[rank - 1]
    return max(scores)


def foreign_texts(processor: FgmmProcessor) -> list[str]:
    """Texts about things that are hardly in anyone's files; for a vocabulary that lacks most of their words, random
    words of the vocabulary."""
    generator = np.random.default_rng(0)
    sentences = [" ".join(parts) for parts in itertools.product(WHO, DOES, WHERE)]
    words = sorted({word for sentence in (*WHO, *DOES, *WHERE) for word in sentence.split()})
    if 2 * len(find_unknown_words(words, processor.tokenizer)) < len(words):
        return [sentences[place] for place in generator.permutation(len(sentences))[:NUM_FOREIGN]]
    special = set(processor.tokenizer.all_special_tokens)
    known = sorted(word for word in processor.tokenizer.get_vocab() if word.isalpha() and word not in special)
    return [" ".join(generator.choice(known, generator.integers(3, 9))) for _ in range(NUM_FOREIGN)]


def fit_spoken_weight(model: FgmmModel, processor: FgmmProcessor, windows: Windows) -> float:
    """How many standard deviations of `seen` all words of a query are worth when they are spoken in a window.

    Captions are taken as queries, each without itself among the captions: what is spoken around it, and what the model
    sees, then tell its own window from others as a logistic regression weighs them. A few captions count little
    against the starting weight.
    """
    cues = windows.catalog.sample_cues(NUM_CUES, seed=0)
    if len(cues) < LEAST_CUES:
        return SPOKEN_WEIGHT
    others = list(windows.catalog.get_windows(itertools.chain(*windows.background_ids.values())).values())
    features, labels = [], []
    for cue, query in zip(
        cues, make_text_queries(model, processor, [cue.text for cue in cues], list(windows.vectors)), strict=True
    ):
        own = windows.catalog.windows_of_file(cue.file, cue.start, cue.end)[:1]
        entries = own + [other for other in others if other.file != cue.file][:20]
        if not own or not query.comparisons:
            continue
        seen = windows.score_seen(query, entries)
        spoken = windows.score_spoken(cue.text, entries, without=(cue.file, cue.start))
        features.append(np.stack([seen, spoken, np.ones(len(entries))], 1))
        labels.append(np.arange(len(entries)) == 0)
    if len(features) < LEAST_CUES:
        return SPOKEN_WEIGHT
    seen_weight, spoken_weight, _ = fit_logistic(np.concatenate(features), np.concatenate(labels))
    if spoken_weight <= 0:
        return 0.0
    return MAX_SPOKEN_WEIGHT if seen_weight <= 0 else min(spoken_weight / seen_weight, MAX_SPOKEN_WEIGHT)


def fit_logistic(features: np.ndarray, labels: np.ndarray, steps: int = 25) -> np.ndarray:
    """The weights of a logistic regression, by Newton's method, with a normal prior around (1, SPOKEN_WEIGHT, 0).

    Args:
        features: (n, 3) seen, spoken, 1. labels: (n,) bool.

    Returns:
        (3,) weights.
    """
    start = np.array([1.0, SPOKEN_WEIGHT, 0.0])
    precision = np.diag([PRIOR_CUES * 0.1, PRIOR_CUES * 0.1, 1e-3])
    weights = start.copy()
    for _ in range(steps):
        probabilities = 1 / (1 + np.exp(-np.clip(features @ weights, -30, 30)))
        gradient = features.T @ (labels - probabilities) - precision @ (weights - start)
        curvature = (features * (probabilities * (1 - probabilities))[:, None]).T @ features + precision
        step = np.linalg.solve(curvature, gradient)
        weights = weights + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-6:
            break
    return weights
