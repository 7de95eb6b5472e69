import pytest
import torch
from tiny_encoders import AUDIO, SIZES, TEXT, VIDEO, WORDS, make_clips, make_sounds, make_texts
from transformers import AutoModel, CLIPModel, SiglipTextConfig, T5Config, WhisperModel

from modeling_fgmm import FgmmConfig, FgmmModel
from modeling_fgmm.encoders_fgmm import encode_present
from modeling_fgmm.layers_fgmm import RegionFeatures
from processing_fgmm import FgmmProcessor


class Recorder(torch.nn.Module):
    """An encoder of numbers (B, 2) to two regions of one channel, which remembers how it was called."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, values):
        self.calls.append((values.tolist(), self.training))
        return RegionFeatures(values.unsqueeze(-1) + 1, (2,), mask=values > 3, pooled=values.unsqueeze(1))


@pytest.mark.parametrize(
    ("present", "encoded", "training"),
    [([1, 1, 1], [[1, 2], [3, 4], [5, 6]], True), ([1, 0, 1], [[1, 2], [5, 6]], True), ([0, 0, 0], [[1, 2]], False)],
)
def test_only_present_items_are_encoded(present, encoded, training):
    encoder, mask = Recorder(), torch.tensor(present).bool()
    values = torch.arange(1.0, 7.0).view(3, 2)
    output = encode_present(encoder, mask, values)
    assert encoder.calls == [(encoded, training)] and encoder.training and output.grid == (2,)
    assert torch.equal(output.features, (values.unsqueeze(-1) + 1) * mask.view(3, 1, 1))
    assert torch.equal(output.mask, (values > 3) & mask.view(3, 1))
    assert torch.equal(output.pooled, values.unsqueeze(1) * mask.view(3, 1, 1))


def test_a_batch_in_which_nothing_is_shown_leaves_the_statistics_alone(model):
    model.train()
    frozen = model.encoders["video"].stem.norm.eval()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    absent = torch.zeros(2, dtype=torch.bool)
    output = model.get_video_features(torch.rand(2, 4, 3, 32, 32), absent)
    assert not output.region_mask.any() and (output.pooler_output == 0).all()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert model.encoders["video"].training and not frozen.training


def test_weights_of_names_are_taken(encoders_at):
    clip, whisper = (
        CLIPModel.from_pretrained(encoders_at / "clip"),
        WhisperModel.from_pretrained(encoders_at / "whisper"),
    )
    model = FgmmModel.from_encoders(
        video=encoders_at / "clip", audio=encoders_at / "whisper", text=encoders_at / "clip"
    )
    clips, texts = make_clips()["pixel_values_videos"], make_texts()
    sounds = make_sounds(AUDIO["whisper"])["input_features"]
    with torch.no_grad():
        tokens = clip.vision_model(clips[:, 0]).last_hidden_state
        assert torch.allclose(model.get_image_features(clips[:, 0]).last_hidden_state, tokens[:, 1:], atol=1e-5)
        expected = whisper.encoder(sounds.transpose(1, 2)).last_hidden_state
        assert torch.allclose(model.get_audio_features(sounds).last_hidden_state, expected, atol=1e-5)
        words = clip.text_model(texts["input_ids"][:1, :6]).last_hidden_state[0]
        phrases = model.get_text_features(**texts).last_hidden_state
        assert torch.allclose(phrases[0, 0], words[1:3].amax(0), atol=1e-5)
    assert model.config.text_config.model_type == "clip_text_model" and not hasattr(model.config, "projection")


def test_every_saved_kind_can_be_named(encoders_at):
    for video, audio in (("videomae", "ast"), ("siglip", "wav2vec2")):
        model = FgmmModel.from_encoders(
            video=str(encoders_at / video), audio=str(encoders_at / audio), text=encoders_at / "bert"
        )
        own = AutoModel.from_pretrained(encoders_at / "bert").state_dict()
        assert torch.equal(
            model.encoders["text"].model.state_dict()["embeddings.word_embeddings.weight"],
            own["embeddings.word_embeddings.weight"],
        )
        own = AutoModel.from_pretrained(encoders_at / video)
        own = getattr(own, "vision_model", own).state_dict()
        ours = model.encoders["video"].model.state_dict()
        assert all(torch.equal(ours[name], own[name]) for name in ours)


def test_encoders_of_an_fgmm_model_can_be_taken(model, processor, tmp_path, encoders_at):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    mixed = FgmmModel.from_encoders(video=tmp_path, audio=tmp_path, text=encoders_at / "bert", projection_dim=8)
    clips = make_clips()["pixel_values_videos"]
    expected = model.get_video_features(clips).last_hidden_state
    assert torch.equal(mixed.get_video_features(clips).last_hidden_state, expected)
    assert mixed.config.video_config.model_type == "fgmm_video"
    mixed_processor = FgmmProcessor.from_encoders(video=tmp_path, audio=tmp_path, text=encoders_at / "bert")
    assert mixed_processor.video_processor.num_frames == 4 and mixed_processor.feature_extractor.feature_size == 32


def test_transformers_encoders_of_an_fgmm_model_can_be_taken(encoders_at, tmp_path):
    start = FgmmModel.from_encoders(audio=encoders_at / "ast", text=encoders_at / "bert", projection_dim=8)
    start.save_pretrained(tmp_path)
    taken = FgmmModel.from_encoders(audio=tmp_path, text=str(tmp_path), projection_dim=8, frozen="text")
    weights, expected = taken.encoders.state_dict(), start.encoders.state_dict()
    assert weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in weights)
    assert taken.config.audio_padding_value == start.config.audio_padding_value != 0
    assert taken.config.frozen == ["text"]
    with pytest.raises(ValueError, match="has no video encoder, only audio, text"):
        FgmmModel.from_encoders(video=tmp_path, text=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": None}, "at least two of video, audio and text, not text"),
        ({"frozen": "audio"}, "frozen has 'audio', which is none of the given encoders video, text"),
        ({"frozen": ["text", "vidoe"]}, "frozen has 'vidoe'"),
        ({"video": torch.nn.Identity()}, "video cannot be a Identity; give a name on the Hub"),
        ({"projectiondim": 3}, "no option 'projectiondim'; did you mean 'projection_dim'"),
        ({"modalities": ["video"]}, "no option 'modalities'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        FgmmModel.from_encoders(**{"video": VIDEO["vit"], "text": TEXT["bert"], **change})


def test_encoders_that_cannot_be_taken_are_named():
    with pytest.raises(ValueError, match="bert is none of the video encoders"):
        FgmmModel.from_encoders(video=TEXT["bert"], text=TEXT["bert"])
    with pytest.raises(ValueError, match="vit is none of the audio encoders"):
        FgmmModel.from_encoders(audio=VIDEO["vit"], text=TEXT["bert"])
    for text in (T5Config(d_model=32), SiglipTextConfig(**SIZES, **WORDS)):
        with pytest.raises(ValueError, match=f"{text.model_type} is no text encoder"):
            FgmmModel.from_encoders(video=VIDEO["vit"], text=text)
    with pytest.raises(ValueError, match="'nonesuch', which transformers lacks"):
        FgmmConfig(video_config={"model_type": "nonesuch"})
    with pytest.raises(OSError, match="nowhere"):
        FgmmModel.from_encoders(video="./nowhere", text=TEXT["bert"])
