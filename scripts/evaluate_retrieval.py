"""Retrieval between texts, videos (or images) and sounds of a prepared corpus.

    accelerate launch scripts/evaluate_retrieval.py --model outputs/fgmm-tiny --dataset data/narrated --split test
    accelerate launch scripts/evaluate_retrieval.py --model outputs/fgmm-tiny --dataset data/narrated --score coarse \
        --output results.json
"""

import argparse
import json
import sys
import time
from pathlib import Path

import evaluate
import torch
from accelerate import PartialState
from records import describe_run
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import AutoModel, AutoProcessor
from transformers.utils import cached_file

from modeling_fgmm import FgmmModel
from modeling_fgmm.loss_fgmm import Keys, Queries
from modeling_fgmm.modeling_fgmm import as_keys, as_queries
from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import CorpusError, FixedClips, collate, load_corpus

METRIC = str(Path(__file__).parent / "metrics" / "fgmm_retrieval")
# Queries that are scored at once against all items.
BLOCK_SIZE = 128


def embed_clips(model: FgmmModel, processor: FgmmProcessor, corpus, batch_size: int, num_workers: int):
    """Encodes every clip of a corpus that can be decoded.

    Returns:
        keys: {"video": Keys, "audio": Keys} of the modalities that clips have, on the CPU; captions: a list of each
        clip's captions; kind: "video" or "image".
    """
    modalities = model.config.modalities
    clips = FixedClips(corpus, processor, with_video="video" in modalities, with_audio="audio" in modalities)
    loader = DataLoader(clips, batch_size=None, num_workers=num_workers)
    parts, captions, batch, failed, single_frames = {}, [], [], 0, True

    def encode():
        inputs = collate(processor, batch, "video" in modalities, "audio" in modalities, with_text=False)
        inputs = {name: value.to(model.device) for name, value in inputs.items()}
        outputs = {}
        if "pixel_values_videos" in inputs:
            outputs["video"] = model.get_video_features(inputs["pixel_values_videos"], inputs["video_mask"])
        if "input_features" in inputs:
            outputs["audio"] = model.get_audio_features(inputs["input_features"], inputs["input_features_mask"])
        for name, output in outputs.items():
            keys = as_keys(output)
            parts.setdefault(name, []).append(Keys(keys.regions.cpu(), keys.mask.cpu(), keys.embeds.cpu()))

    for _, clip in tqdm(sorted_by_position(loader), desc="Encoding clips", unit="clip", leave=False):
        if isinstance(clip, str):
            tqdm.write(f"Skipped a clip: {clip}")
            failed += 1
            continue
        single_frames &= clip.frames is not None and len(clip.frames) == 1
        captions.append(clip.captions)
        batch.append(clip)
        if len(batch) == batch_size:
            encode()
            batch = []
    if batch:
        encode()
    if not captions:
        raise CorpusError(f"No clip of the corpus could be decoded ({failed} failed).")
    keys = {name: concatenate(pieces) for name, pieces in parts.items()}
    keys = {name: value for name, value in keys.items() if value.present.any()}
    return keys, captions, "image" if single_frames else "video"


def sorted_by_position(loader):
    """Workers answer in turn, but for the last ones: items in the order of the corpus."""
    waiting, expected = {}, 0
    for position, clip in loader:
        waiting[position] = clip
        while expected in waiting:
            yield expected, waiting.pop(expected)
            expected += 1
    for position in sorted(waiting):
        yield position, waiting[position]


def concatenate(pieces: list[Keys]) -> Keys:
    """Batches of keys end to end; where they have different numbers of regions, the shorter ones are padded."""
    longest = max(piece.mask.shape[1] for piece in pieces)

    def pad(tensor):
        shape = list(tensor.shape)
        shape[1] = longest - shape[1]
        return torch.cat([tensor, tensor.new_zeros(shape)], dim=1)

    return Keys(
        torch.cat([pad(piece.regions) for piece in pieces]),
        torch.cat([pad(piece.mask) for piece in pieces]),
        torch.cat([piece.embeds for piece in pieces]),
    )


def encode_texts(model: FgmmModel, processor: FgmmProcessor, texts: list[str]) -> Queries:
    """Each text as a query of one caption."""
    inputs = processor(text=texts)
    return as_queries(model.get_text_features(**{name: value.to(model.device) for name, value in inputs.items()}))


def sounds_as_queries(keys: Keys, rows: slice, device) -> Queries:
    """Each sound as a query whose phrases are its regions."""
    mask = keys.mask[rows].to(device)
    return Queries(
        phrases=keys.regions[rows].to(device),
        mask=mask,
        captions=torch.zeros_like(mask, dtype=torch.long),
        embeds=keys.embeds[rows].unsqueeze(1).to(device),
        caption_mask=mask.any(1, keepdim=True),
    )


def score_block(objective, queries: Queries, keys: Keys, score: str) -> torch.Tensor:
    """(queries, items) scores; an item without the modality, or a text without a word, comes last."""
    functions = {"trained": objective.scores, "fine": objective.fine_scores, "coarse": objective.coarse_scores}
    scores = functions[score](queries, keys).squeeze(-1)
    return scores.masked_fill(~keys.present, -2.0).masked_fill(~queries.caption_mask, -2.0).cpu()


@torch.no_grad()
def evaluate_retrieval(
    model: FgmmModel,
    processor: FgmmProcessor,
    corpus,
    score: str = "trained",
    batch_size: int = 32,
    num_workers: int = 1,
) -> dict[str, dict[str, float]]:
    """Retrieval in both directions for each pair of modalities that the clips have.

    Args:
        model, processor: in evaluation mode, as loaded.
        corpus: from [`load_corpus`]; each of a clip's captions is a query of its own.
        score: `"trained"` (what the model's objective trains), `"fine"` (regions and phrases) or `"coarse"` (one vector
            each).
        batch_size: clips encoded at once.
        num_workers: decoding processes.

    Returns:
        {"text_to_video": {"R@1": percent, ...}, "video_to_text": ...}; image for video where clips are images.
    """
    keys, captions, kind = embed_clips(model, processor, corpus, batch_size, num_workers)
    names = {"video": kind, "audio": "audio"}
    texts = [text for clip in captions for text in clip]
    owners = [index for index, clip in enumerate(captions) for _ in clip]
    results = {}
    for ask, answer in (("text", "video"), ("text", "audio"), ("audio", "video")):
        if f"{ask}_{answer}" not in model.objectives or answer not in keys or ask not in ("text", *keys):
            continue
        number = len(texts) if ask == "text" else len(captions)
        if not number:
            continue
        answers = keys[answer]
        answers = Keys(*(part.to(model.device) for part in (answers.regions, answers.mask, answers.embeds)))
        metric = evaluate.load(METRIC)
        objective = model.objectives[f"{ask}_{answer}"]
        for first in tqdm(range(0, number, BLOCK_SIZE), desc=f"Scoring {ask} and {names[answer]}", leave=False):
            rows = slice(first, min(first + BLOCK_SIZE, number))
            if ask == "text":
                queries, references = encode_texts(model, processor, texts[rows]), owners[rows]
            else:
                queries = sounds_as_queries(keys["audio"], rows, model.device)
                references = range(rows.start, rows.stop)
            scores = score_block(objective, queries, answers, score)
            metric.add_batch(predictions=scores.numpy(), references=list(references))
        both = metric.compute()
        results[f"{ask}_to_{names[answer]}"] = both["text_to_item"]
        results[f"{names[answer]}_to_{ask}"] = both["item_to_text"]
    if not results:
        raise CorpusError(
            "The clips of the corpus share no two modalities with the model, so that nothing is to compare."
        )
    return results


def format_table(results: dict[str, dict[str, float]]) -> str:
    """The results as lines of text."""
    columns = ("R@1", "R@5", "R@10", "MedR", "MnR", "num_queries", "num_items")
    lines = [f"{'':16}" + "".join(f"{column:>12}" for column in columns)]
    for direction, values in results.items():
        cells = (f"{values[column]:12.1f}" if "num" not in column else f"{values[column]:12d}" for column in columns)
        lines.append(f"{direction:16}" + "".join(cells))
    return "\n".join(lines)


def read_training_record(model: str) -> dict | None:
    """What scripts/pretrain.py wrote beside the model, where it did."""
    path = cached_file(model, "training.json", _raise_exceptions_for_missing_entries=False)
    return json.loads(Path(path).read_text()) if path else None


def load_model(name: str) -> tuple[FgmmModel, FgmmProcessor]:
    """A model for evaluation, and its processor.

    Raises:
        CorpusError: when there is none of that name.
    """
    try:
        return AutoModel.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise CorpusError(f"The model {name!r} could not be loaded: {str(error).splitlines()[0]}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder or name on the Hub")
    parser.add_argument("--dataset", required=True, help="folder of Parquet shards or a dataset on the Hub")
    parser.add_argument("--split", default="test")
    parser.add_argument(
        "--score",
        choices=("trained", "fine", "coarse"),
        default="trained",
        help="what the model's objective trains, regions and phrases, or one vector",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="clips encoded at once")
    parser.add_argument("--num_workers", type=int, default=2, help="decoding processes")
    parser.add_argument("--output", help="JSON file for the results")
    args = parser.parse_args()

    state = PartialState()
    started = time.monotonic()
    if args.output:
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    corpus = load_corpus(args.dataset, args.split)
    model, processor = load_model(args.model)
    model.to(state.device)
    # The whole evaluation is one process' work: with more of them, the others wait.
    if state.is_main_process:
        results = evaluate_retrieval(model, processor, corpus, args.score, args.batch_size, args.num_workers)
        print(format_table(results))
        if args.output:
            training = read_training_record(args.model)
            record = {
                "model": args.model,
                "dataset": args.dataset,
                "split": args.split,
                "protocol": f"retrieval, {args.score} score, the middle {processor.clip_seconds:g} s of each item",
                "metrics": results,
                "seed": training and training["seed"],
                **describe_run(time.monotonic() - started),
                "training": training,
            }
            Path(args.output).write_text(json.dumps(record, indent=2) + "\n")
            print(f"Wrote {args.output}.")
    state.wait_for_everyone()


if __name__ == "__main__":
    try:
        main()
    except CorpusError as error:
        sys.exit(str(error))
