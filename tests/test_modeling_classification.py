"""The classification models of modeling_fgmm: an encoder, a mean over regions and a linear layer."""

import pytest
import torch
import torch.nn.functional as F
from helpers import CLASS_NAMES
from transformers import AutoModelForAudioClassification, AutoModelForVideoClassification
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput

from modeling_fgmm import FgmmForAudioClassification, FgmmForVideoClassification


@pytest.mark.parametrize("kind", [FgmmForVideoClassification, FgmmForAudioClassification])
def test_the_encoder_is_the_models_and_the_head_is_new(model, tmp_path, kind):
    model.save_pretrained(tmp_path)
    classifier, report = kind.from_pretrained(tmp_path, num_labels=5, output_loading_info=True)
    assert report["missing_keys"] == {"classifier.weight", "classifier.bias"} and not report["unexpected_keys"]
    assert list(classifier.encoders) == [kind.modality]
    for name, value in model.encoders[kind.modality].state_dict().items():
        assert torch.equal(value, classifier.encoders[kind.modality].state_dict()[name])
    assert classifier.classifier.weight.shape[0] == 5 and classifier.classifier.weight.std() > 0


@pytest.mark.parametrize(
    "kind,auto,inputs",
    [
        (FgmmForVideoClassification, AutoModelForVideoClassification, {"pixel_values_videos": (2, 4, 3, 32, 32)}),
        (FgmmForAudioClassification, AutoModelForAudioClassification, {"input_features": (2, 48, 32)}),
    ],
)
def test_save_and_load(config, tmp_path, kind, auto, inputs):
    config.id2label, config.label2id = (
        dict(enumerate(CLASS_NAMES)),
        {name: index for index, name in enumerate(CLASS_NAMES)},
    )
    classifier = kind(config).eval()
    classifier.save_pretrained(tmp_path)
    loaded, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is kind and not report["missing_keys"] and not report["unexpected_keys"]
    inputs = {name: torch.randn(shape) for name, shape in inputs.items()}
    assert torch.equal(loaded(**inputs).logits, classifier(**inputs).logits)
    assert loaded.config.id2label == dict(enumerate(CLASS_NAMES))


def test_loss_and_logits_are_the_plain_ones(config):
    config.num_labels, config.classifier_dropout = 4, 0.0
    classifier = FgmmForVideoClassification(config).eval()
    pixels = torch.randn(3, 4, 3, 32, 32)
    output = classifier(pixels, labels=torch.tensor([0, 3, 1]), output_hidden_states=True)
    features = output.hidden_states[-1].flatten(2)
    logits = features.mean(2) @ classifier.classifier.weight.T + classifier.classifier.bias
    assert isinstance(output, ImageClassifierOutput) and torch.allclose(output.logits, logits, atol=1e-5)
    expected = -logits.log_softmax(-1)[range(3), [0, 3, 1]].mean()
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert classifier(pixels).loss is None and classifier(pixels).hidden_states is None
    assert torch.equal(classifier(pixels, return_dict=False)[0], output.logits)


def test_multi_label_loss_is_the_plain_one(config):
    config.num_labels, config.problem_type = 3, "multi_label_classification"
    classifier = FgmmForAudioClassification(config).eval()
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    output = classifier(torch.randn(2, 48, 32), labels=labels)
    expected = -(labels * F.logsigmoid(output.logits) + (1 - labels) * F.logsigmoid(-output.logits)).mean()
    assert isinstance(output, SequenceClassifierOutput)
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_padding_changes_nothing(config):
    classifier = FgmmForAudioClassification(config).eval()
    sounds = torch.randn(2, 48, 32).requires_grad_()
    mask = torch.tensor([[True] * 48, [True] * 30 + [False] * 18])
    output = classifier(sounds, mask, output_hidden_states=True)
    mean = output.hidden_states[-1][1, :, :, :4].mean((1, 2))  # the network halves three times: 30 frames, 4 regions
    assert torch.allclose(output.logits[1], classifier.classifier(mean), atol=1e-5)
    assert torch.allclose(output.logits[1], classifier(sounds[1:, :30]).logits[0], atol=1e-5)
    changed = sounds.detach().clone()
    changed[1, 30:] = 1e3
    assert torch.equal(output.logits, classifier(changed, mask).logits)
    output.logits.sum().backward()
    assert (sounds.grad[1, 30:] == 0).all() and sounds.grad[1, :30].abs().max() > 0
    silent = classifier(sounds, torch.zeros_like(mask)).logits
    assert torch.equal(silent, classifier.classifier.bias.expand_as(silent))


def test_an_image_is_a_clip_of_one_frame(config):
    classifier = FgmmForVideoClassification(config).eval()
    image = torch.randn(2, 1, 3, 32, 32)
    still = classifier(image.expand(-1, 4, -1, -1, -1)).logits
    assert torch.allclose(classifier(image).logits, still, atol=1e-4)


def test_a_model_without_the_encoder_is_refused(config):
    config.modalities = ["audio", "text"]
    with pytest.raises(ValueError, match="no video encoder"):
        FgmmForVideoClassification(config)
