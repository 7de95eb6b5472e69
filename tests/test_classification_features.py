import pytest
import torch
from accelerate import Accelerator
from helpers import CLASS_NAMES

from fgmm_tools.classification import features, folds
from fgmm_tools.classification.settings import ClassificationSettings
from fgmm_tools.cli import UserError
from modeling_fgmm import FgmmForAudioClassification, FgmmModel

SETTINGS = ClassificationSettings("knn", num_windows=2, batch_size=7, num_workers=0)


@pytest.fixture
def windows(processor):
    """Model inputs of a sound, of a shorter one, and of silence."""
    generator = torch.Generator().manual_seed(0)
    return processor(audio=[torch.randn(8000, generator=generator), torch.randn(4000, generator=generator), None])


def test_features_are_means_over_regions_and_embeddings_the_pooled_ones(model, windows):
    with torch.no_grad():
        output = model.get_audio_features(**windows)
        found, embeds = features.mean_features(model, windows), features.embeddings(model, windows)
    assert output.region_mask.sum(1).tolist()[2] == 0 < output.region_mask.sum(1)[1] < output.region_mask.sum(1)[0]
    for row in (0, 1):
        assert torch.allclose(found[row], output.last_hidden_state[row][output.region_mask[row]].mean(0), atol=1e-6)
    assert (found[2] == 0).all() and torch.equal(embeds, output.pooler_output)


@pytest.mark.parametrize("problem", ["single", "multi"])
def test_probabilities(config, windows, problem):
    config.num_labels, config.problem_type = 3, f"{problem}_label_classification"
    classifier = FgmmForAudioClassification(config).eval()
    with torch.no_grad():
        found, logits = features.class_probabilities(classifier, windows), classifier(**windows).logits
    expected = logits.exp() / logits.exp().sum(1, keepdim=True) if problem == "single" else 1 / (1 + (-logits).exp())
    assert torch.allclose(found, expected, atol=1e-6)


def test_zero_shot_is_the_mean_of_the_models_logits(model, processor, windows):
    templates = ["{}", "the dog barks, {}"]
    with torch.no_grad():
        zero_shot = features.make_zero_shot(model, processor, "audio", ["smallDog", *CLASS_NAMES[1:]], templates)
        texts = [processor(text=[template.format(name) for name in CLASS_NAMES]) for template in templates]
        logits = torch.stack([model(**text, **windows).logits_per_audio for text in texts]).mean(0)
        assert torch.allclose(zero_shot(windows), logits, atol=1e-4) and logits.shape == (3, 3)


def test_unknown_words_of_class_names_are_named(model, processor, caplog):
    features.make_zero_shot(model, processor, "audio", ["small dog", "LoudZyzzyva"], ["{}"])
    assert "'zyzzyva'." in caplog.text and "'small'" not in caplog.text


def test_class_names_without_a_known_word_are_refused(model, processor):
    with pytest.raises(UserError, match="knows no word of 'zyzzyva', 'push ups'; give other words"):
        features.make_zero_shot(model, processor, "audio", ["small dog", "Zyzzyva", "PushUps"], ["a {}", "loud {}"])


def test_zero_shot_needs_an_objective_of_text(config, processor):
    config.modalities = ["video", "text"]
    with pytest.raises(UserError, match="does not compare text with audio"):
        features.make_zero_shot(FgmmModel(config), processor, "audio", CLASS_NAMES, ["{}"])


@pytest.mark.parametrize(
    "name,spelt",
    [
        ("BabyCrawling", "baby crawling"),
        ("brush_hair", "brush hair"),
        ("Dog bark", "dog bark"),
        ("TaiChi", "tai chi"),
        ("HandstandPushups", "handstand pushups"),
    ],
)
def test_class_names_are_spelt_out(name, spelt):
    assert features.spell(name) == spelt


def mean_magnitudes(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """(B, mel bands): windows of different sounds differ."""
    return inputs["input_features"].abs().mean(1)


def test_clips_that_splits_have_in_common_are_encoded_once(sounds, processor):
    processor.clip_seconds, batches = 0.5, []

    def encode(inputs):
        batches.append(len(inputs["input_features"]))
        return mean_magnitudes(inputs)

    encoder = features.SplitEncoder(encode, processor, "audio", Accelerator(), SETTINGS)
    (train, test), (train2, test2) = [
        [folds.read_split(str(sounds), split, fold) for split in ("train", "test")] for fold in ("fold1", "fold2")
    ]
    first, second = encoder.encode_split(train, "train"), encoder.encode_split(test, "test")
    assert sum(batches) == 2 * 45 and max(batches) == 7
    assert list(first) == list(train.labels) and list(second) == list(test.labels)
    again, last = encoder.encode_split(train2, "train"), encoder.encode_split(test2, "test")
    assert sum(batches) == 2 * 45  # all 45 clips are in the first fold
    assert list(again) == list(train2.labels) and set(last) < set(first) and set(second) < set(again)
    assert all(values.shape == (2, 32) for values in again.values())
    lone = features.SplitEncoder(mean_magnitudes, processor, "audio", Accelerator(), SETTINGS)
    for name, values in lone.encode_split(train2, "train").items():
        assert (abs(values - again[name]) < 1e-5).all()


def test_values_that_are_not_numbers_name_the_clip(sounds, processor):
    split = folds.read_split(str(sounds), "test", "fold1")
    encoder = features.SplitEncoder(
        lambda inputs: mean_magnitudes(inputs) * float("nan"), processor, "audio", Accelerator(), SETTINGS
    )
    with pytest.raises(UserError, match=r"'1-0-A-0' is not a number \(NaN\): its weights are damaged"):
        encoder.encode_split(split, "test")
