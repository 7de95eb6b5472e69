"""How fast training clips are loaded, against plain PyAV that decodes the same windows in as many processes.

    python scripts/benchmark_loading.py --datasets data/narrated data/ucf101 --output model_cards/results/loading.json
    python scripts/benchmark_loading.py --datasets data/mine --config scripts/configs/fgmm-small.yaml --workers 1 2 4 8

Measured are the clips a second of plain PyAV, of our reading of media files, of torchcodec where it can be imported,
and of the loader of training; the time of a window in a long file, against decoding all pictures from the keyframe
before it; the bytes that an epoch reads, of those that the files have; the seconds to the first clip of a resumed run;
and a worker's memory over many clips. Of several corpora the first gives the metrics, the others stand beside them.
"""

import argparse
import tempfile
import time
from pathlib import Path

from fgmm_tools.cli import at_least, make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--datasets", nargs="+", required=True, help="folders of corpora with videos")
    parser.add_argument("--split", default="train", help="of the corpora")
    parser.add_argument(
        "--config", default="scripts/configs/fgmm-tiny.yaml", help="of scripts/pretrain.py: frames, sizes and seconds"
    )
    parser.add_argument("--workers", nargs="+", type=at_least(1), default=[1, 2, 4], help="numbers of workers")
    parser.add_argument("--num_clips", type=at_least(1), default=1000, help="clips of each measurement")
    parser.add_argument("--repeats", type=at_least(1), default=3, help="measurements, of which the fastest counts")
    parser.add_argument("--memory_clips", type=at_least(10), default=10_000, help="clips over which memory is watched")
    parser.add_argument("--minutes", type=at_least(1), default=10, help="length of the long file, which is rendered")
    parser.add_argument("--output", type=Path, help="results file (JSON)")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    import torch
    from accelerate import Accelerator

    from fgmm_tools import loading_benchmark as benchmark
    from fgmm_tools.records import claim_output, describe_run, write_record
    from fgmm_tools.training.checks import settle_config
    from fgmm_tools.training.configuration import parse_config
    from processing_fgmm.rowgroups_fgmm import open_row_groups

    started = time.monotonic()
    if args.output:
        claim_output(args.output)
    torch.set_num_threads(1)
    rates = {}
    arguments = ["--config", args.config, "--dataset", args.datasets[0], "--output_dir", "unused", "--eval_steps", "0"]
    config = settle_config(parse_config(arguments), Accelerator(cpu=True))
    processor = benchmark.make_processor(config)
    for dataset in reversed(args.datasets):  # the first last, whose rows are used further on
        rows = open_row_groups(dataset, args.split)
        measured = benchmark.measure_corpus(
            rows, processor, args.num_clips, config.batch_size, args.workers, args.repeats
        )
        rates[Path(dataset).name] = of_corpus = {}
        for name, values in measured:
            of_corpus[name] = values
            print(f"{dataset}: {name} {values} clips/s", flush=True)
    related = {name: benchmark.relate_rates(of_corpus) for name, of_corpus in rates.items()}
    metrics = related[Path(args.datasets[0]).name]
    _, sampling = benchmark.list_windows(rows, processor, 1)
    with tempfile.TemporaryDirectory() as folder:
        benchmark.render_long_file(path := Path(folder) / "long.mp4", args.minutes)
        metrics["long_window_of_own"] = round(benchmark.measure_long_window(path, config.clip_seconds, sampling), 3)
    metrics["bytes_read_of_needed"] = {
        str(count): round(benchmark.count_bytes(rows, processor, count), 3) for count in range(5)
    }
    places = {str(place): round(benchmark.measure_resumption(rows, processor, place), 2) for place in benchmark.PLACES}
    metrics["resume_seconds"] = max(places.values())
    memory = benchmark.measure_memory(rows, processor, args.memory_clips, config.batch_size)
    metrics["worker_growth_mb"] = round(memory[-1] - memory[1], 1)
    print("\n".join(f"{name}: {value}" for name, value in metrics.items()))
    if args.output:
        record = {
            "datasets": args.datasets,
            "metrics": metrics,
            "others": {name: values for name, values in related.items() if values is not metrics},
            "clips_per_second": rates,
            "resume_seconds_at": places,
            "worker_memory_mb": [round(value, 1) for value in memory],
            "settings": {
                "clip_seconds": config.clip_seconds,
                "num_clips": args.num_clips,
                "batch_size": config.batch_size,
            },
            **describe_run(time.monotonic() - started),
        }
        write_record(args.output, record)
        print(f"Wrote {args.output}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
