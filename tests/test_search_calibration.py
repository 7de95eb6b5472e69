import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgmm_tools.models import load_model
from fgmm_tools.search.calibration import (
    CONFIDENCE,
    FALSE_POSITIVES,
    NUM_FOREIGN,
    SPOKEN_WEIGHT,
    fit_logistic,
    foreign_texts,
    tolerance_bound,
)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["normal", "exponential", "uniform"]))
def test_so_few_scores_of_the_same_kind_exceed_the_bound(seed, kind):
    generator = np.random.default_rng(seed)
    reached = []
    for _ in range(150):
        bound = tolerance_bound(list(getattr(generator, kind)(size=NUM_FOREIGN)))
        reached.append(np.mean(getattr(generator, kind)(size=2000) > bound))
    assert np.mean(np.array(reached) <= FALSE_POSITIVES + 0.005) >= CONFIDENCE - 0.05
    assert np.mean(reached) >= FALSE_POSITIVES / 3  # and it is not far too high


def test_of_too_few_scores_the_bound_is_the_highest():
    assert tolerance_bound([3.0, 1.0, 2.0]) == 3.0
    assert tolerance_bound(list(range(199))) == 193


def test_foreign_texts_are_sentences_where_their_words_are_known(dual_at, small_model):
    sentences = foreign_texts(load_model(str(dual_at["clip"]))[1])
    words = foreign_texts(load_model(str(small_model))[1])  # which knows the words of a few captions alone
    assert len(sentences) == len(words) == NUM_FOREIGN
    processor = load_model(str(small_model))[1]
    assert processor.check_words(words) == ([], [])
    assert foreign_texts(processor) == words  # always the same


def test_speech_that_tells_windows_apart_weighs_more():
    generator = np.random.default_rng(0)
    labels = np.arange(2000) % 20 == 0

    def fit(seen_gap, spoken_gap):
        seen = generator.normal(size=2000) + seen_gap * labels
        spoken = np.clip(generator.uniform(0, 0.4, 2000) + spoken_gap * labels, 0, 1)
        weights = fit_logistic(np.stack([seen, spoken, np.ones(2000)], 1), labels)
        return weights[1] / weights[0]

    assert fit(1.0, 0.6) > SPOKEN_WEIGHT > fit(3.0, 0.0)


def test_without_evidence_the_weights_are_those_they_start_with():
    weights = fit_logistic(np.array([[0.0, 0.0, 1.0]]), np.array([False]))
    assert weights[:2] == pytest.approx([1.0, SPOKEN_WEIGHT])
