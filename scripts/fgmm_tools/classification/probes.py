"""Classifiers on frozen features: linear, few-shot, nearest neighbours. Arrays in, scores out."""

import warnings
from collections.abc import Iterator

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from .folds import split_groups
from .metrics import average_precisions

# Inverse strengths of the regularisation among which cross-validation chooses.
REGULARISATION = np.logspace(-4, 2, 7)
# MTEB's few-shot classification: labelled clips a class, draws of them, steps of the logistic regression.
SHOTS = 8
NUM_DRAWS = 10
SHOT_STEPS = 100
# Nearest neighbours vote by exp(cosine / temperature), as is usual since Wu et al. (CVPR 2018).
TEMPERATURE = 0.07


def fit_linear(
    features: np.ndarray, targets: np.ndarray, groups: list[str], kind: str, multi_label: bool, seed: int
) -> GridSearchCV:
    """A linear classifier on standardised features, its regularisation chosen by cross-validation.

    Args:
        features: (rows, channels).
        targets: (rows, classes) 0 or 1.
        groups: of each row; none is in both the training and the validation part.
        kind: `"logistic"` or `"svm"`.
        multi_label: one classifier against the rest for each class, chosen by mAP; else one for all, by accuracy.
        seed: of the parts, and of the SVM's order.

    Raises:
        ValueError: when all rows are of one group, or no classifier can be fitted.
    """
    classifier = LogisticRegression(max_iter=1000) if kind == "logistic" else LinearSVC(random_state=seed)
    if multi_label:
        classifier, name = OneVsRestClassifier(classifier), "onevsrestclassifier__estimator__C"
        scoring = make_scorer(mean_average_precision, response_method="decision_function")
    else:
        name, scoring = f"{type(classifier).__name__.lower()}__C", "accuracy"
    search = GridSearchCV(
        make_pipeline(StandardScaler(), classifier),
        {name: REGULARISATION},
        cv=split_groups(targets, groups, seed),
        scoring=scoring,
    )
    with warnings.catch_warnings():  # the weakest regularisation need not converge, and is validated as it is
        warnings.simplefilter("ignore", ConvergenceWarning)
        return search.fit(features, targets if multi_label else targets.argmax(1))


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """mAP in percent over the classes that have a row; both arguments (rows, classes)."""
    return float(np.nanmean(average_precisions(targets, scores)))


def class_scores(classifier, features: np.ndarray, num_classes: int) -> np.ndarray:
    """(rows, classes) decision values of a fitted classifier; the lowest for a class without training rows.

    Args:
        features: (rows, channels).
    """
    decisions = classifier.decision_function(features)
    if decisions.ndim == 1:  # two classes
        decisions = np.stack([-decisions, decisions], axis=1)
    if decisions.shape[1] == num_classes:
        return decisions
    scores = np.full((len(features), num_classes), decisions.min() - 1)
    scores[:, classifier.classes_] = decisions
    return scores


def few_shot_scores(train: np.ndarray, targets: np.ndarray, test: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """For each draw of SHOTS training clips a class, (test clips, classes) scores of logistic regression on them.

    Args:
        train, test: (clips, D) embeddings.
        targets: (training clips, classes) 1 for the class of the clip, else 0.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    classes = targets.argmax(1)
    for _ in range(NUM_DRAWS):
        order = generator.permutation(len(classes))
        rows = np.concatenate([order[classes[order] == index][:SHOTS] for index in np.unique(classes)])
        classifier = LogisticRegression(max_iter=SHOT_STEPS).fit(train[rows], classes[rows])
        yield class_scores(classifier, test, targets.shape[1])


def neighbour_scores(train: np.ndarray, targets: np.ndarray, test: np.ndarray, num_neighbours: int) -> np.ndarray:
    """(test clips, classes): each of the nearest training clips votes for its classes by exp(cosine / temperature).

    Args:
        train, test: (clips, D) L2-normalised.
        targets: (training clips, classes) 0 or 1.
        num_neighbours: that vote (k); all training clips where there are fewer.
    """
    cosines = test @ train.T
    nearest = np.argsort(-cosines, axis=1)[:, :num_neighbours]
    votes = np.exp(np.take_along_axis(cosines, nearest, 1) / TEMPERATURE)
    return np.einsum("ik,ikc->ic", votes, targets[nearest])
