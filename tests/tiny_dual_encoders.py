"""Tiny dual encoders of transformers with random weights and their own processors, as a name on the Hub holds them."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from helpers import TEXTS
from PIL import Image
from tiny_encoders import CLIP_TEXT, PICTURE, SIZES, WORDS, make_picture_processor
from tokenizers import Tokenizer, models, normalizers, processors, trainers
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    PeAudioConfig,
    PeAudioEncoderConfig,
    PeAudioFeatureExtractor,
    PeAudioModel,
    PeVideoEncoderConfig,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
)
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

# A scale and a bias far from where training starts, so that neither can be left out unnoticed.
LOGIT_SCALE, LOGIT_BIAS = 2.5, -3.0
SIGLIP_TEXT = {**SIZES, **WORDS, "max_position_embeddings": 24}
CLAP_TEXT = {**SIZES, **WORDS, "pad_token_id": 0, "max_position_embeddings": 64, "projection_dim": 12}
CLAP_AUDIO = {
    **{"num_mel_bins": 16, "spec_size": 64, "window_size": 4, "patch_size": 2, "patch_stride": [2, 2]},
    **{"depths": [1, 2], "num_attention_heads": [2, 2], "num_hidden_layers": 2, "hidden_size": 32},
    **{"patch_embeds_hidden_size": 16, "projection_dim": 12},
}
CONFIGS = {
    "clip": CLIPConfig(vision_config={**SIZES, **PICTURE}, text_config=CLIP_TEXT, projection_dim=12),
    "siglip": SiglipConfig(vision_config={**SIZES, **PICTURE}, text_config=SIGLIP_TEXT),
    "siglip2": Siglip2Config(vision_config={**SIZES, "patch_size": 8, "num_patches": 16}, text_config=SIGLIP_TEXT),
    "clap": ClapConfig(text_config=CLAP_TEXT, audio_config=CLAP_AUDIO, projection_dim=12),
    "clap_fused": ClapConfig(
        text_config=CLAP_TEXT,
        audio_config={**CLAP_AUDIO, "enable_fusion": True},
        projection_dim=12,
    ),
}
PE_ENCODER = {**SIZES, "head_dim": 16}
PE_TEXT = {"model_type": "modernbert", **SIZES, **WORDS, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
PE_TEXT |= {"cls_token_id": 2, "sep_token_id": 3, "max_position_embeddings": 64}
PE_HOP = 960
PE_AUDIO = PeAudioEncoderConfig(
    **PE_ENCODER, dac_config={"encoder_hidden_size": 4, "downsampling_ratios": [8, 10, 12], "codebook_dim": 8}
)
CONFIGS["pe_audio"] = PeAudioConfig(text_config=PE_TEXT, audio_config=PE_AUDIO)
# Its vision transformer is timm's, which is not needed here: another classifier of images takes its place.
PE_VIDEO = PeVideoEncoderConfig(**PE_ENCODER, vision_config=ViTConfig(**SIZES, **PICTURE, num_labels=10))
MODELS = {
    "clip": CLIPModel,
    "siglip": SiglipModel,
    "siglip2": Siglip2Model,
    "clap": ClapModel,
    "clap_fused": ClapModel,
    "pe_audio": PeAudioModel,
}
WITH_IMAGES = ("clip", "siglip", "siglip2")
WITH_SOUNDS = ("clap", "clap_fused", "pe_audio")


def train_byte_pairs(texts: list[str]) -> Siglip2Tokenizer:
    """SigLIP 2's way of cutting texts, trained on a few of them."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=120, special_tokens=special))
    model = json.loads(tokenizer.to_str())["model"]
    trained = Siglip2Tokenizer(model["vocab"], [tuple(pair) for pair in model["merges"]])
    template = processors.TemplateProcessing("$A <eos>", None, [("<eos>", 1)])
    trained.backend_tokenizer.post_processor = template
    return trained


def save_dual_encoder(name: str, folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Saves a model and its processors; the tokenizer is that of all but SigLIP 2."""
    torch.manual_seed(7)
    model = MODELS[name](CONFIGS[name]).eval()
    with torch.no_grad():
        for parameter, value in model.named_parameters():
            if "logit_" in parameter:
                # The second scale of CLAP is not that of audio.
                values = {"logit_bias": LOGIT_BIAS, "text_audio_logit_bias": LOGIT_BIAS, "logit_scale_t": -1.0}
                value.fill_(values.get(parameter, LOGIT_SCALE))
            elif value.ndim == 1:  # biases of 0 and scales of 1 hide mistakes
                value.add_(0.2 * torch.randn_like(value))
            else:  # where they are small all items are nearly one
                value.mul_(5 if name == "pe_audio" else 2)
    model.save_pretrained(folder)
    if name == "siglip2":  # pads on the left, with id 0, of which its configuration says neither
        tokenizer = train_byte_pairs(TEXTS)
    tokenizer = copy.deepcopy(tokenizer)
    if name == "clip":
        tokenizer.pad_token = "[SEP]"  # the end of the text, as CLIP's
    tokenizer.save_pretrained(folder)
    if name in ("clip", "siglip"):
        make_picture_processor(name).save_pretrained(folder)
    elif name == "siglip2":
        Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16).save_pretrained(folder)
    elif name == "pe_audio":
        PeAudioFeatureExtractor(hop_length=PE_HOP).save_pretrained(folder)
    else:
        truncation = "fusion" if name == "clap_fused" else "rand_trunc"
        ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation=truncation).save_pretrained(folder)
    return folder


class Reference:
    """What transformers makes of a saved dual encoder: cosines, logits, embeddings."""

    def __init__(self, name: str, folder: Path):
        self.name = name
        self.model = AutoModel.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.folder = folder

    def texts(self, texts: list[str]) -> dict[str, torch.Tensor]:
        if "siglip" in self.name:
            inputs = self.tokenizer(texts, padding="max_length", max_length=24, truncation=True, return_tensors="pt")
            return {"input_ids": inputs["input_ids"]}
        inputs = self.tokenizer(texts, padding=True, return_tensors="pt")
        return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}

    def media(self, items: list) -> dict[str, torch.Tensor]:
        """Inputs of images or of sounds (S,) at 48 kHz, by the dual encoder's own processor."""
        if self.name in WITH_SOUNDS:
            extractor = AutoFeatureExtractor.from_pretrained(self.folder)
            made = [extractor(item, sampling_rate=48000, return_tensors="pt") for item in items]
            if self.name == "pe_audio":  # of lengths of their own
                return made
            return {key: torch.cat([one[key] for one in made]) for key in made[0]}
        kind = Siglip2ImageProcessorPil if self.name == "siglip2" else type(make_picture_processor(self.name))
        made = [kind.from_pretrained(self.folder)(item) for item in items]
        return {key: torch.as_tensor(np.concatenate([np.asarray(one[key]) for one in made])) for key in made[0]}

    @torch.no_grad()
    def __call__(self, items: list, texts: list[str]):
        """The output of transformers' class, with normalised embeddings."""
        media = self.media(items)
        if self.name != "pe_audio":
            return self.model(**self.texts(texts), **media)
        outputs = [self.model(**self.texts(texts), **one) for one in media]
        return SimpleNamespace(
            audio_embeds=F.normalize(torch.cat([output.audio_embeds for output in outputs]), dim=-1),
            text_embeds=F.normalize(outputs[0].text_audio_embeds, dim=-1),
        )


def make_images() -> list[Image.Image]:
    """Three pictures of different aspect ratios."""
    generator = np.random.default_rng(4)
    return [
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1))
        for size in ((20, 30), (33, 17), (12, 12))
    ]


def make_waves() -> list[np.ndarray]:
    """Three sounds at 48 kHz: of a third of a second, of nearly one, and of just one."""
    generator = np.random.default_rng(5)
    return [
        (0.2 * generator.standard_normal(length) + 0.5 * np.sin(np.arange(length) * 0.03 * row)).astype(np.float32)
        for row, length in enumerate((16000, 47000, 48000), 1)
    ]
