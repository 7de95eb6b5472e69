"""Damages media files at random and reads them, for as long as one likes: anything but a MediaError is a fault.

    python scripts/fuzz_media.py --mutations 20000 --output model_cards/results/fuzz_media.json
    python scripts/fuzz_media.py --mutations 1000000 --seconds 3600 --seed 1 --files ~/videos clip.mp4
    python scripts/fuzz_media.py --seed 0 --first 1234 --mutations 1        one file again

Small files of many containers and codecs are rendered, or those of --files are taken. Each damaged file is read with
every function of processing_fgmm.media_fgmm, in a process whose memory is limited. A fault is another exception, a
crash, or a file that takes more than 10 s; it is printed at once and its file is kept.
"""

import argparse
import time
from pathlib import Path

from fgmm_tools.cli import UserError, at_least, make_parser, run_command, seed


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--mutations", type=at_least(1), default=1000, help="number of damaged files")
    parser.add_argument("--seconds", type=at_least(1), help="after which no other file is read")
    parser.add_argument("--seed", type=seed, default=0, help="of the damage")
    parser.add_argument("--first", type=at_least(0), default=0, help="number of the first damaged file")
    parser.add_argument("--files", type=Path, nargs="+", help="files and folders to damage, in place of rendered ones")
    parser.add_argument("--keep", type=Path, default=Path("outputs/fuzz_media"), help="folder for files with a fault")
    parser.add_argument("--output", type=Path, help="results file (JSON)")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    import json

    from fgmm_tools.media_fuzzing import find_versions, fuzz, read_given, render_files, require_linux, summarise
    from fgmm_tools.records import claim_output, describe_run, write_record

    started = time.monotonic()
    require_linux()
    if args.output:
        claim_output(args.output)
    files = read_given(args.files) if args.files else render_files()
    results = summarise(fuzz(files, args.mutations, args.keep, args.seed, args.first, args.seconds))
    print(json.dumps(results, indent=2))
    if args.output:
        settings = {"mutations": args.mutations, "seed": args.seed, "first": args.first, "files": sorted(files)}
        run = describe_run(time.monotonic() - started)
        write_record(
            args.output,
            {"settings": settings, "results": results, "versions": find_versions(), "seed": args.seed, **run},
        )
        print(f"Wrote {args.output}.")
    if results["faults"]:
        raise UserError(f"{len(results['faults'])} faults; their files are in {args.keep}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
