"""What several test files share: small real files, tiny encoders and objectives, benchmarks in their layouts, commands
in-process, several processes."""

import math
import socket
import sys
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
import torch.multiprocessing as multiprocessing
from datasets import List
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

from fgmm_tools.corpora import preparation
from fgmm_tools.corpora.benchmarks import BENCHMARKS
from modeling_fgmm import FgmmConfig, FgmmModel
from modeling_fgmm.loss_fgmm import OBJECTIVES, PairObjective
from modeling_fgmm.scoring_fgmm import Keys, Queries

ROOT = Path(__file__).parent.parent
TEXTS = [
    "crack two eggs into a bowl",
    "a red ball rolls across the green grass",
    "the small dog barks at a loud car",
    "stir the sauce and add some salt",
]


# Of zero-shot classification.
LABELS = ["a small dog", "the green grass", "a bowl"]


def check_label_scores(answer: list[dict], scores: torch.Tensor) -> None:
    """Checks a pipeline's answer, all labels from the highest score down, against the probability of each of LABELS."""
    assert [entry["score"] for entry in answer] == sorted((entry["score"] for entry in answer), reverse=True)
    assert {entry["label"]: round(entry["score"], 4) for entry in answer} == {
        label: round(score, 4) for label, score in zip(LABELS, scores.tolist(), strict=True)
    }


def run_main(monkeypatch, command, *arguments) -> None:
    """Runs a command of scripts/ in this process; errors come as they are raised.

    Args:
        command: its module.
        arguments: of its command line.
    """
    monkeypatch.setattr(sys, "argv", [f"scripts/{command.__name__}.py", *map(str, arguments)])
    command.main(command.parse_arguments())


def write_video(
    path,
    times=None,
    seconds=2.0,
    rate=10,
    size=(64, 48),
    pixel_format="yuv420p",
    codec="libx264",
    sound=None,
    sound_rate=16000,
    still=False,
    options=None,
    container_options=None,
):
    """Writes a file whose frame at time t has the grey value 20 + 40·t, with a sine of `sound` seconds.

    Args:
        times: presentation time of each frame, seconds; None: every 1/rate s for `seconds`.
        size: (width, height), pixels.
        sound: seconds of sound, None for no stream.
        still: the same moving pattern of colours in place of grey.
    """
    times = [index / rate for index in range(max(1, round(seconds * rate)))] if times is None else times
    with av.open(str(path), "w", options=container_options or {}) as container:
        if times:
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.width, stream.height, stream.pix_fmt = *size, pixel_format
            stream.codec_context.time_base = Fraction(1, 1000)
            if pixel_format == "gray":
                stream.codec_context.color_range = av.video.reformatter.ColorRange.JPEG  # what grey frames hold
        if sound:
            audio = container.add_stream("aac", rate=sound_rate, layout="mono")
        for time in times:
            picture = np.full((size[1], size[0], 3), min(255, 20 + 40 * time), dtype=np.uint8)
            if still:
                picture[: size[1] // 2, :, 0], picture[size[1] // 2 :, :, 2] = 250, 250
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        if times:
            container.mux(stream.encode(None))
        if sound:
            wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(sound * sound_rate)) / sound_rate)
            frame = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = sound_rate, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def write_sound(path, seconds=1.0, pitch=440, rate=16000):
    """Writes a WAV file of a sine, mono, 16 bits."""
    sine = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((32767 * sine).astype(np.int16).tobytes())
    return path


def run_processes(function, bounds: list[int], folder) -> list:
    """Runs `function(rank, world, port, bounds, folder)` in a process for each pair of neighbouring bounds.

    Returns:
        what each of them saved as `folder/RANK.pt`.
    """
    world = len(bounds) - 1
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # Packages are imported once, by the server that processes are forked from.
    multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", "modeling_fgmm", "processing_fgmm"])
    arguments = (world, port, bounds, str(folder))
    multiprocessing.start_processes(function, arguments, nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


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


def unit_vectors(generator: torch.Generator, *shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


def make_scoring_inputs(num_queries, num_phrases, num_keys, num_regions, dim, dtype=torch.float64, seed=0):
    """Random queries (Bq, M, D), keys (Bk, N, D) and their masks."""
    generator = torch.Generator().manual_seed(seed)
    query_mask = torch.rand(num_queries, num_phrases, generator=generator) < 0.7
    key_mask = torch.rand(num_keys, num_regions, generator=generator) < 0.7
    queries = unit_vectors(generator, num_queries, num_phrases, dim, dtype=dtype)
    return queries, unit_vectors(generator, num_keys, num_regions, dim, dtype=dtype), query_mask, key_mask


def plain_similarity(queries, keys, query_mask, key_mask, sharpness) -> torch.Tensor:
    """The formula of attended similarity with loops: what every implementation must give."""
    result = queries.new_zeros(len(queries), len(keys), queries.shape[1])
    for i, j, m in torch.cartesian_prod(*(torch.arange(size) for size in result.shape)).view(-1, 3).tolist():
        kept = keys[j][key_mask[j]]
        if not query_mask[i, m] or not len(kept):
            continue
        cosines = kept @ queries[i, m]
        if sharpness == math.inf:
            result[i, j, m] = cosines.max()
            continue
        weights = torch.exp(sharpness * cosines - (sharpness * cosines).max().detach())
        result[i, j, m] = (weights * cosines).sum() / weights.sum()
    return result


def gradients_of(function, queries, keys, query_mask, key_mask, sharpness):
    """The result, and the gradients of queries, keys and sharpness for a fixed random upstream gradient."""
    gamma = torch.tensor(sharpness, dtype=torch.promote_types(keys.dtype, torch.float32))
    tensors = [tensor.clone().requires_grad_() for tensor in (queries, keys, gamma)]
    result = function(tensors[0], tensors[1], query_mask, key_mask, tensors[2])
    upstream = torch.randn(result.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if result.requires_grad:  # the plain formula is a constant where every query is masked
        result.backward(upstream.to(result))
    return result.detach(), [torch.zeros_like(t) if t.grad is None else t.grad for t in tensors]


# The parameters of objectives in tests, and options of the fine one.
SHARPNESS, DELTA, LOGIT_SCALE, BIAS, WHOLE = 5.0, 1.5, 2.0, -3.0, 0.3
GATE = torch.linspace(-0.2, 0.3, 8, dtype=torch.float64)
# Every objective, and every option that changes its loss.
OBJECTIVE_VARIANTS = {
    **{name: {"objective": name} for name in OBJECTIVES},
    **{f"{name}, gce": {"objective": name, "gce_q": 0.4} for name in OBJECTIVES if name != "siglip"},
    "without gates": {"phrase_gates": False},
    "fixed": {"learnable_sharpness": False, "learnable_phrase_sharpness": False},
}


def make_objective(objective: str = "fine", **options) -> PairObjective:
    """An objective in float64 with parameters that make every part of it count."""
    if objective == "fine":
        options = {"coarse_loss_weight": 0.3, "whole_caption_weight": WHOLE, **options}
    config = FgmmConfig(objective=objective, projection_dim=len(GATE), **options)
    made = OBJECTIVES[objective](config).double()
    values = {"log_sharpness": math.log(SHARPNESS), "phrase_sharpness": DELTA, "logit_bias": BIAS}
    with torch.no_grad():
        for name, parameter in (*made.named_parameters(), *made.named_buffers()):
            parameter.fill_(values.get(name, LOGIT_SCALE))
            if name == "phrase_gate":
                parameter.copy_(GATE)
    return made


def make_items(number=5, num_phrases=4, num_captions=2, num_regions=6):
    """Random items: the second has no text, the fourth no regions, some captions are missing.

    Returns:
        Phrases (B, M, D), caption embeds (B, K, D), regions (B, N, D), embeds (B, D); and the phrases' mask and
        captions (B, M), the captions' mask (B, K), the regions' mask (B, N).
    """
    generator, dim = torch.Generator().manual_seed(0), len(GATE)
    mask = torch.rand(number, num_phrases, generator=generator) < 0.8
    mask[:, 0], mask[1] = True, False
    captions = torch.randint(0, num_captions, (number, num_phrases), generator=generator).masked_fill(~mask, 0)
    belongs = torch.nn.functional.one_hot(captions, num_captions).bool() & mask.unsqueeze(-1)
    region_mask = torch.rand(number, num_regions, generator=generator) < 0.8
    region_mask[:, 0], region_mask[3] = True, False
    shapes = ((number, num_phrases), (number, num_captions), (number, num_regions), (number,))
    tensors = [unit_vectors(generator, *shape, dim) for shape in shapes]
    return tensors, (mask, captions, belongs.any(1), region_mask)


def make_pair(tensors, masks, rows=slice(None)) -> tuple[Queries, Keys]:
    """Queries and keys of some of the items."""
    phrases, caption_embeds, regions, embeds = (tensor[rows] for tensor in tensors)
    mask, captions, caption_mask, region_mask = (tensor[rows] for tensor in masks)
    return Queries(phrases, mask, captions, caption_embeds, caption_mask), Keys(regions, region_mask, embeds)


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


def read(name, source):
    """({configuration: {split: items}}, class names, problems)."""
    problems = []
    reading = BENCHMARKS[name].read(source, problems)
    splits = {
        config: {
            split: [item for group in groups for item in reading.groups[group]] for split, groups in splits.items()
        }
        for config, splits in reading.configs.items()
    }
    label = reading.label.feature if isinstance(reading.label, List) else reading.label
    return splits, label and label.names, problems


def sizes(splits):
    return {split: len(items) for split, items in splits.items()}


def prepare(name, source, output, limit=None):
    rows, noise = preparation.Rows(limit, 0), preparation.Noise(None, None, 0, 0.0, 0)
    preparation.prepare(name, source, output, rows, 1, noise)


def touch(folder, names):
    """Empty files: readers look at names only."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


def write_esc50(put):
    """Two sounds a fold, of classes 0 (in ESC-10) and 12; then a sound without a file and one of fold 6."""
    rows = []
    for fold in range(1, 6):
        rows.append([f"{fold}-1-A-0.wav", fold, 0, "dog", "True", 1, "A"])
        rows.append([f"{fold}-2-A-12.wav", fold, 12, "sea_waves", "False", 2, "A"])
    for name, *_ in rows:
        put(f"audio/{name}")
    rows += [["1-9-A-0.wav", 1, 0, "dog", "True", 9, "A"], ["6-1-A-0.wav", 6, 0, "dog", "True", 1, "A"]]
    put("audio/6-1-A-0.wav")
    put("meta/esc50.csv", [["filename", "fold", "target", "category", "esc10", "src_file", "take"], *rows])
