import numpy as np
import pytest

from fgmm_tools.classification import probes


def test_neighbours_vote_by_their_cosines():
    train, targets = np.eye(3), np.array([[1, 0], [0, 1], [0, 1]])
    test = np.array([[0.8, 0.6, 0.0]])
    votes = np.exp(np.array([0.8, 0.6]) / probes.TEMPERATURE)
    assert np.allclose(probes.neighbour_scores(train, targets, test, 2), [votes])
    assert np.allclose(probes.neighbour_scores(train, targets, test, 20), [[votes[0], votes[1] + 1]])


def test_a_class_without_training_clips_comes_last():
    features = np.random.default_rng(0).standard_normal((8, 2))
    for present in ([0, 2] * 4, [0, 1, 3, 3] * 2):
        classifier = probes.LogisticRegression().fit(features, present)
        scores = probes.class_scores(classifier, features, 4)
        assert np.array_equal(scores.argmax(1), classifier.predict(features))
        assert (scores[:, [i for i in range(4) if i not in present]] < scores[:, present].min()).all()


def test_shots_are_eight_a_class(monkeypatch):
    sizes = []
    fit = probes.LogisticRegression.fit
    monkeypatch.setattr(
        probes.LogisticRegression, "fit", lambda self, x, y: sizes.append(np.bincount(y)) or fit(self, x, y)
    )
    train = np.random.default_rng(0).standard_normal((40, 2))
    list(probes.few_shot_scores(train, np.eye(2, dtype=int)[[0, 1, 1, 1] * 10], train, 0))
    assert len(sizes) == 10 and all(size.tolist() == [8, 8] for size in sizes)


@pytest.mark.parametrize("kind", ["logistic", "svm"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_linear_classifier_separates_what_is_separable(kind, multi_label):
    generator = np.random.default_rng(0)
    targets = np.eye(3, dtype=int)[np.arange(60) % 3]
    features = 3 * targets + generator.standard_normal((60, 3)) + 100  # far from 0, as features are
    groups = [f"g{number // 2}" for number in range(60)]
    classifier = probes.fit_linear(features, targets, groups, kind, multi_label, seed=0)
    scores = probes.class_scores(classifier, features, 3)
    assert (scores.argmax(1) == targets.argmax(1)).mean() > 0.9
    assert next(iter(classifier.best_params_.values())) in probes.REGULARISATION
