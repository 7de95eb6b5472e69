"""Tiny encoders of transformers with random weights, their inputs and processors."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DistilBertConfig,
    HubertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    TimesformerConfig,
    VideoMAEConfig,
    VideoMAEModel,
    ViTConfig,
    VivitConfig,
    VJEPA2Config,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from modeling_fgmm import FgmmModel

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
PICTURE = {"image_size": 32, "patch_size": 16}
WAVE = {
    "conv_dim": [16, 16],
    "conv_kernel": [10, 4],
    "conv_stride": [5, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
WORDS = {"vocab_size": 120}
CLIP_TEXT = {**SIZES, **WORDS, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
VIDEO = {
    "videomae": VideoMAEConfig(**SIZES, **PICTURE, num_frames=4),
    "vivit": VivitConfig(**SIZES, image_size=32, tubelet_size=[2, 16, 16], num_frames=4),
    "timesformer": TimesformerConfig(**SIZES, **PICTURE, num_frames=4),
    "vjepa2": VJEPA2Config(
        **{name: value for name, value in SIZES.items() if name != "intermediate_size"},
        **{"crop_size": 32, "patch_size": 16, "frames_per_clip": 4},
        **{"pred_hidden_size": 32, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
    ),
    "clip": CLIPVisionConfig(**SIZES, **PICTURE),
    "siglip": SiglipVisionConfig(**SIZES, **PICTURE),
    "vit": ViTConfig(**SIZES, **PICTURE),
    "dinov2": Dinov2Config(**SIZES, image_size=64, patch_size=16),
    "dinov2_with_registers": Dinov2WithRegistersConfig(**SIZES, image_size=64, patch_size=16, num_register_tokens=3),
}
PER_FRAME = ("clip", "siglip", "vit", "dinov2", "dinov2_with_registers")
AUDIO = {
    "ast": ASTConfig(**SIZES, num_mel_bins=24, max_length=60, patch_size=8, frequency_stride=8, time_stride=6),
    "wav2vec2": Wav2Vec2Config(**SIZES, **WAVE),
    "wav2vec2_layer": Wav2Vec2Config(**SIZES, **WAVE, feat_extract_norm="layer", do_stable_layer_norm=True),
    "hubert": HubertConfig(**SIZES, **WAVE),
    "wavlm": WavLMConfig(**SIZES, **WAVE, num_buckets=8),
    "whisper": WhisperConfig(
        **{"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48},
        **{"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 48},
        **{"num_mel_bins": 24, "max_source_positions": 50, "vocab_size": 52000},
    ),
}
TEXT = {
    "bert": BertConfig(**SIZES, **WORDS),
    "distilbert": DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=48, **WORDS),
    "roberta": RobertaConfig(**SIZES, **WORDS),
    "mpnet": MPNetConfig(**SIZES, **WORDS),
    "clip": CLIPTextConfig(**CLIP_TEXT),
}


def make_model(video="vit", audio="wav2vec2", text="bert", **options) -> FgmmModel:
    torch.manual_seed(0)
    parts = {"video": VIDEO.get(video), "audio": AUDIO.get(audio), "text": TEXT.get(text)}
    return FgmmModel.from_encoders(**parts, projection_dim=16, **options)


def make_clips() -> dict[str, torch.Tensor]:
    """Three clips; the second item has no video."""
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(3, 4, 3, 32, 32, generator=generator)
    return {"pixel_values_videos": clips, "video_mask": torch.tensor([True, False, True])}


def make_sounds(config) -> dict[str, torch.Tensor]:
    """Three sounds, one half as long; the last item has none."""
    generator = torch.Generator().manual_seed(2)
    shape = {"whisper": (3, 100, 24), "audio-spectrogram-transformer": (3, 60, 24)}.get(config.model_type, (3, 4000))
    values = torch.randn(*shape, generator=generator)
    mask = torch.ones(shape[:2], dtype=torch.bool)
    mask[1, shape[1] // 2 :] = False
    mask[2] = False
    return {"input_features": values, "input_features_mask": mask}


def make_texts() -> dict[str, torch.Tensor]:
    """Three items; the first and last have two captions, with tokens in front and behind that are in no phrase."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.ones(3, 12, dtype=torch.long)
    mask[1, 7:] = 0
    return {
        "input_ids": torch.randint(5, 119, (3, 12), generator=generator) * mask,
        "attention_mask": mask,
        "phrase_spans": torch.tensor([[[1, 3], [4, 5], [7, 10]], [[1, 2], [2, 6], [0, 0]], [[1, 2], [4, 6], [7, 9]]]),
        "phrase_captions": torch.tensor([[0, 0, 1], [0, 0, 0], [0, 1, 1]]),
        "phrase_mask": torch.tensor([[True] * 3, [True, True, False], [True] * 3]),
        "caption_lengths": torch.tensor([[6, 6], [7, 0], [3, 9]]),
    }


# Two texts of single tokens, the second padded.
PADDED_TEXTS = {
    "input_ids": torch.tensor([[3, 7, 5, 2], [4, 6, 0, 0]]),
    "attention_mask": torch.tensor([[1] * 4, [1, 1, 0, 0]]),
}


def make_inputs(model) -> dict[str, torch.Tensor]:
    return {**make_clips(), **make_sounds(model.config.audio_config), **make_texts()}


def randomize_norms(encoder) -> None:
    """Running statistics and scales as after training; fresh ones hide mistakes."""
    for module in encoder.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.3, 0.3)


# Of pictures, those of transformers that work without torchvision, and their settings.
CROP = {"crop_size": {"height": 32, "width": 32}}
PICTURE_PROCESSORS = {
    "videomae": (VideoMAEImageProcessorPil, {"size": {"shortest_edge": 32}, **CROP}),
    "clip": (CLIPImageProcessorPil, {"size": {"shortest_edge": 36}, **CROP}),
    "siglip": (SiglipImageProcessorPil, {"size": {"height": 32, "width": 32}}),
    "vit": (ViTImageProcessorPil, {"size": {"height": 32, "width": 32}}),
}


def make_picture_processor(name: str):
    """An encoder's own image processor."""
    kind, options = PICTURE_PROCESSORS[name]
    return kind(**options)


def train_word_pieces(texts: list[str]) -> PreTrainedTokenizerFast:
    """BERT's way of cutting texts, trained on a few of them: 120 pieces of words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, mask_token="[MASK]", model_max_length=64)


def save_encoders(root: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Saved encoders, each with its own processor: what a name on the Hub holds."""
    torch.manual_seed(5)
    clip = CLIPConfig(vision_config=VIDEO["clip"].to_dict(), text_config=CLIP_TEXT, projection_dim=8)
    siglip = SiglipConfig(vision_config=VIDEO["siglip"].to_dict(), text_config={**SIZES, **WORDS})
    parts = {
        "videomae": VideoMAEModel(VIDEO["videomae"]),
        "clip": CLIPModel(clip),
        "siglip": SiglipModel(siglip),
        "ast": ASTModel(AUDIO["ast"]),
        "wav2vec2": Wav2Vec2Model(AUDIO["wav2vec2"]),
        "whisper": WhisperModel(AUDIO["whisper"]),
        "bert": BertModel(TEXT["bert"]),
    }
    for name, model in parts.items():
        model.save_pretrained(root / name)
    ASTFeatureExtractor(num_mel_bins=24, max_length=60, mean=-5.0, std=3.0).save_pretrained(root / "ast")
    Wav2Vec2FeatureExtractor().save_pretrained(root / "wav2vec2")
    WhisperFeatureExtractor(feature_size=24, chunk_length=1).save_pretrained(root / "whisper")
    for name in parts.keys() & PICTURE_PROCESSORS.keys():
        make_picture_processor(name).save_pretrained(root / name)
    tokenizer.save_pretrained(root / "bert")
    tokenizer.save_pretrained(root / "clip")
    return root
