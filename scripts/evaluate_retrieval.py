"""Retrieval between texts, videos (or images) and sounds of a prepared corpus.

    accelerate launch scripts/evaluate_retrieval.py --model outputs/fgmm-tiny --dataset data/narrated --split test
    accelerate launch scripts/evaluate_retrieval.py --model outputs/fgmm-tiny --dataset data/narrated \
        --score coarse_then_fine --num_windows 4 --output results.json
    accelerate launch scripts/evaluate_retrieval.py --model outputs/fgmm-tiny --dataset data/youcook2 --each_caption

Each caption of an item is a query of its own. The scores are what the model's objective trains (trained), of regions
with phrases (fine), of one vector each (coarse), or coarse for all and fine for the best of these (coarse_then_fine).

Clips without sound stand among the items of text-audio and audio-video retrieval and count as errors, as queries and as
right answers (the convention of AVLnet); with --skip_silent they are left out of both. --random_init gives the floor.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import evaluate
import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from arguments import at_least
from records import claim_output, describe_run, write_record
from retrieval_scores import (
    BLOCK_SIZE,
    clock,
    concatenate,
    join_windows,
    map_fields,
    score_pairs,
    select,
    sounds_as_queries,
)
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import AutoModel, AutoProcessor
from transformers.utils import cached_file

from modeling_fgmm import FgmmModel
from modeling_fgmm.loss_fgmm import Keys, Queries
from modeling_fgmm.modeling_fgmm import PAIRS
from modeling_fgmm.outputs_fgmm import as_keys, as_queries
from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import (
    CorpusError,
    EvaluationItem,
    FixedClips,
    check_times,
    collate,
    in_order,
    load_corpus,
)

METRIC = str(Path(__file__).parent / "metrics" / "fgmm_retrieval")
COLUMNS = ("R@1", "R@5", "R@10", "nDCG@10", "MedR", "MnR", "num_queries", "num_items")


@dataclass
class EncodedCorpus:
    """A corpus in the shared space, on the CPU.

    parts: of "video" and "audio" the items' keys, of "text" all captions as queries; what no item has is left out.
    owners: (texts,) the item that each caption belongs to. kind: "video", or "image" where every item is one frame.
    num_not_shown: items left out because they cannot be decoded.
    """

    parts: dict[str, Queries | Keys]
    owners: torch.Tensor
    kind: str
    num_not_shown: int


def read_items(clips: FixedClips, num_workers: int, failures: list[str]) -> Iterator[EvaluationItem]:
    """The items of a corpus that can be decoded, in its order; the others are named and added to `failures`.

    Raises:
        CorpusError: when none can be decoded.
    """
    loader = DataLoader(clips, batch_size=None, num_workers=num_workers)
    empty = True
    for _, items in tqdm(in_order(loader), desc="Encoding clips", unit="row", leave=False):
        for item in items:
            if isinstance(item, str):
                tqdm.write(f"Skipped a clip: {item}")
                failures.append(item)
            else:
                empty = False
                yield item
    if empty:
        raise CorpusError(
            f"No clip of the corpus could be decoded ({len(failures)} failed); one published as ids has no media."
        )


def in_batches(items: Iterator[EvaluationItem], batch_size: int) -> Iterator[list[EvaluationItem]]:
    """Items until their windows are a batch."""
    batch = []
    for item in items:
        batch.append(item)
        if sum(len(item.windows) for item in batch) >= batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def encode_windows(model: FgmmModel, processor: FgmmProcessor, items: list[EvaluationItem]) -> dict[str, Keys]:
    """The keys of "video" and "audio" of some items, on the CPU."""
    windows = [window for item in items for window in item.windows]
    modalities = model.config.modalities
    inputs = collate(processor, windows, "video" in modalities, "audio" in modalities, with_text=False)
    outputs = model.encode_inputs(**{name: value.to(model.device) for name, value in inputs.items()})
    counts = [len(item.windows) for item in items]
    return {
        name: join_windows(map_fields(torch.Tensor.cpu, as_keys(output)), counts) for name, output in outputs.items()
    }


def encode_texts(model: FgmmModel, processor: FgmmProcessor, texts: list[str]) -> Queries:
    """Each text as a query of one caption, on the CPU."""
    pieces = []
    for first in range(0, len(texts), BLOCK_SIZE):
        inputs = processor(text=texts[first : first + BLOCK_SIZE])
        output = model.get_text_features(**{name: value.to(model.device) for name, value in inputs.items()})
        pieces.append(map_fields(torch.Tensor.cpu, as_queries(output)))
    return concatenate(pieces)


def encode_corpus(model: FgmmModel, processor: FgmmProcessor, clips: FixedClips, batch_size: int, num_workers: int):
    """Encodes all items that can be decoded, and all their captions; gives an [`EncodedCorpus`]."""
    pieces: dict[str, list[Keys]] = {}
    texts, owners, single_frames, number = [], [], True, 0
    failures: list[str] = []
    for batch in in_batches(read_items(clips, num_workers, failures), batch_size):
        for name, keys in encode_windows(model, processor, batch).items():
            pieces.setdefault(name, []).append(keys)
        for item in batch:
            single_frames &= all(clip.frames is not None and len(clip.frames) == 1 for clip in item.windows)
            texts += item.captions
            owners += [number] * len(item.captions)
            number += 1
    parts = {name: concatenate(keys) for name, keys in pieces.items()}
    parts = {name: keys for name, keys in parts.items() if keys.present.any()}
    if texts and "text" in model.config.modalities:
        parts["text"] = encode_texts(model, processor, texts)
    kind = "image" if single_frames else "video"
    return EncodedCorpus(parts, torch.tensor(owners, dtype=torch.long), kind, len(failures))


def pair_up(encoded: EncodedCorpus, ask: str, answer: str, skip_silent: bool) -> tuple[Queries, Keys, torch.Tensor]:
    """The queries and items of two modalities, and (queries,) the right item of each query."""
    keys = encoded.parts[answer]
    if ask == "text":
        queries, owners = encoded.parts["text"], encoded.owners
    else:
        queries, owners = sounds_as_queries(encoded.parts[ask]), torch.arange(len(keys.mask))
    if skip_silent and "audio" in (ask, answer):
        has_sound = encoded.parts["audio"].present
        asked = has_sound[owners]
        queries, keys, owners = select(queries, asked), select(keys, has_sound), owners[asked]
        owners = (has_sound.cumsum(0) - 1)[owners]
    return queries, keys, owners


@torch.no_grad()
def evaluate_retrieval(
    model: FgmmModel,
    processor: FgmmProcessor,
    corpus,
    score: str = "trained",
    batch_size: int = 32,
    num_workers: int = 1,
    *,
    rerank_k: int = 100,
    num_windows: int = 1,
    each_caption: bool = False,
    skip_silent: bool = False,
    seconds: Counter | None = None,
) -> dict[str, dict[str, float]]:
    """Retrieval in both directions for each pair of modalities that the clips have.

    Args:
        model, processor: in evaluation mode, as loaded.
        corpus: from [`load_corpus`]; each of a clip's captions is a query of its own.
        score: `"trained"` (what the model's objective trains), `"fine"` (regions and phrases), `"coarse"` (one vector
            each) or `"coarse_then_fine"` (the best `rerank_k` by the coarse score once more by the fine one).
        batch_size: windows encoded at once.
        num_workers: decoding processes.
        rerank_k: items of a query, and queries of an item, that are scored finely.
        num_windows, each_caption: see [`FixedClips`].
        skip_silent: leave clips without sound out of text-audio and audio-video; else they count as errors.
        seconds: the time is added to its stages: encoding (with decoding), coarse_scoring, fine_scoring.

    Returns:
        {"text_to_video": {"R@1": percent, ...}, "video_to_text": ...}; image for video where clips are images. Clips
        that cannot be decoded are neither queries nor items; num_not_shown counts them where there are any.

    Raises:
        CorpusError: when nothing can be decoded or compared, or a caption has no times of its own.
    """
    seconds = Counter() if seconds is None else seconds
    if each_caption:
        check_times(corpus)
    clips = FixedClips(
        corpus,
        processor,
        with_video="video" in model.config.modalities,
        with_audio="audio" in model.config.modalities,
        num_windows=num_windows,
        each_caption=each_caption,
    )
    with clock(seconds, "encoding"):
        encoded = encode_corpus(model, processor, clips, batch_size, num_workers)
    names = {"text": "text", "video": encoded.kind, "audio": "audio"}
    metric = evaluate.load(METRIC)
    results = {}
    for ask, answer in PAIRS:
        if not {ask, answer} <= encoded.parts.keys():
            continue
        queries, keys, owners = pair_up(encoded, ask, answer, skip_silent)
        if not len(owners):
            continue
        queries, keys = (map_fields(lambda value: value.to(model.device), part) for part in (queries, keys))
        objective = model.objectives[f"{ask}_{answer}"]
        of_queries, of_items = score_pairs(objective, queries, keys, score, rerank_k, seconds)
        found = metric.compute(predictions=of_queries.numpy(), references=owners.numpy())
        results[f"{names[ask]}_to_{names[answer]}"] = found["text_to_item"]
        found = metric.compute(predictions=of_items.numpy(), references=owners.numpy())
        results[f"{names[answer]}_to_{names[ask]}"] = found["item_to_text"]
    if encoded.num_not_shown:
        results = {name: values | {"num_not_shown": encoded.num_not_shown} for name, values in results.items()}
    if not results:
        raise CorpusError(
            "The clips of the corpus share no two modalities with the model, so that nothing is to compare."
        )
    return results


def format_table(results: dict[str, dict[str, float]]) -> str:
    """The results as lines of text."""
    columns = [column for column in COLUMNS if all(column in values for values in results.values())]
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
        CorpusError: when there is none of that name, it is damaged, or it is no fgmm model.
    """
    try:
        model = AutoModel.from_pretrained(name).eval()
        if model.config.model_type != "fgmm":
            raise CorpusError(f"{name!r} is a model of the kind {model.config.model_type}, not fgmm.")
        return model, AutoProcessor.from_pretrained(name)
    except CorpusError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        place = "" if Path(name).is_dir() else " is no folder here, and"
        raise CorpusError(f"The model {name!r}{place} could not be loaded: {str(error).splitlines()[0]}") from error


def describe_protocol(args: argparse.Namespace, clip_seconds: float, with_sound: bool) -> str:
    """What was retrieved, and how it was scored."""
    score = f"{args.score} score"
    if args.random_init:
        score += " of random weights"
    if args.score == "coarse_then_fine":
        score += f" (the best {args.rerank_k} finely)"
    shown = f"the middle {clip_seconds:g} s" if args.num_windows == 1 else f"{args.num_windows} x {clip_seconds:g} s"
    parts = ["retrieval", score, f"{shown} of each {'caption' if args.each_caption else 'item'}"]
    if with_sound:
        convention = "are left out" if args.skip_silent else "count as errors (AVLnet's convention)"
        parts.append(f"clips without sound {convention}")
    return ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder or name on the Hub")
    parser.add_argument("--dataset", required=True, help="folder of Parquet shards or a dataset on the Hub")
    parser.add_argument("--dataset_config", help="which of its official splits or folds, where it has several")
    parser.add_argument("--split", default="test")
    parser.add_argument("--score", choices=("trained", "fine", "coarse", "coarse_then_fine"), default="trained")
    parser.add_argument("--rerank_k", type=at_least(1), default=100, help="how many coarse_then_fine scores finely")
    parser.add_argument("--random_init", action="store_true", help="the model's architecture with random weights")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    parser.add_argument("--num_windows", type=at_least(1), default=1, help="windows shown of each item; 1: the middle")
    parser.add_argument("--each_caption", action="store_true", help="each timed caption is an item, not each row")
    parser.add_argument("--skip_silent", action="store_true", help="clips without sound are left out, not errors")
    parser.add_argument("--batch_size", type=at_least(1), default=32, help="windows encoded at once")
    parser.add_argument("--num_workers", type=at_least(0), default=2, help="decoding processes")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()

    state = PartialState()
    if not state.is_main_process:
        return  # the whole evaluation is one process' work, and longer than others may wait for it
    started, seconds = time.monotonic(), Counter(encoding=0.0, coarse_scoring=0.0, fine_scoring=0.0)
    if args.output:
        claim_output(args.output)
    corpus = load_corpus(args.dataset, args.split, args.dataset_config)
    model, processor = load_model(args.model)
    if args.random_init:
        set_seed(args.seed)
        model = FgmmModel(model.config).eval()
    model.to(state.device)
    results = evaluate_retrieval(
        model,
        processor,
        corpus,
        args.score,
        args.batch_size,
        args.num_workers,
        rerank_k=args.rerank_k,
        num_windows=args.num_windows,
        each_caption=args.each_caption,
        skip_silent=args.skip_silent,
        seconds=seconds,
    )
    print(format_table(results))
    if args.output:
        training = None if args.random_init else read_training_record(args.model)
        with_sound = any("audio" in direction for direction in results)
        record = {
            "model": args.model,
            "dataset": args.dataset,
            "dataset_config": args.dataset_config,
            "split": args.split,
            "protocol": describe_protocol(args, processor.clip_seconds, with_sound),
            "metrics": results,
            "seed": args.seed if args.random_init else training and training["seed"],
            **describe_run(time.monotonic() - started),
            "seconds_of_stages": {stage: round(value, 3) for stage, value in seconds.items()},
            "training": training,
        }
        write_record(args.output, record)
        print(f"Wrote {args.output}.")


if __name__ == "__main__":
    try:
        main()
    except CorpusError as error:
        sys.exit(str(error))
