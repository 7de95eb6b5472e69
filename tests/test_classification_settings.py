import pytest

from fgmm_tools.classification.settings import HELD_OUT, ClassificationSettings
from fgmm_tools.cli import UserError


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"protocol": "guess"}, "protocol='guess' is none of linear, knn, zero_shot, finetune"),
        ({"protocol": "linear", "classifier": "tree"}, "classifier='tree'"),
        ({"protocol": "knn", "modality": "text"}, "modality='text'"),
        ({"protocol": "knn", "few_shot": True}, "the protocol must be linear"),
        ({"protocol": "linear", "few_shot": True, "classifier": "svm"}, "the classifier logistic"),
        ({"protocol": "zero_shot", "random_init": True}, "trains nothing"),
        ({"protocol": "zero_shot", "split": HELD_OUT}, "trains nothing"),
        ({"protocol": "zero_shot", "templates": ["{}", "a sound"]}, "must hold {}"),
        ({"protocol": "knn", "clip_seconds": 0.0}, "clip_seconds=0.0 must be positive"),
        ({"protocol": "knn", "clip_seconds": float("nan")}, "clip_seconds=nan must be positive"),
        ({"protocol": "finetune", "learning_rate": float("inf")}, "both must be finite"),
        ({"protocol": "finetune", "learning_rate": 0.0}, "learning_rate must be positive"),
        ({"protocol": "finetune", "weight_decay": -0.1}, "weight_decay not negative"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(UserError, match=message) as error:
        ClassificationSettings(**fields)
    assert "\n" not in str(error.value)


def test_settings_that_fit_are_taken():
    for protocol in ("linear", "knn", "finetune"):
        ClassificationSettings(protocol, split=HELD_OUT, random_init=True, modality="audio")
    ClassificationSettings("linear", few_shot=True)
    ClassificationSettings("zero_shot", templates=["the sound of {}"])
