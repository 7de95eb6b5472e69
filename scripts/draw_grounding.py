"""Draws what the phrases of a text mean in a file: in which places of its pictures, and when in its sound.

    python scripts/draw_grounding.py --model outputs/fgmm-tiny --video clip.mp4 --text "a red star spins" --output a.png
    python scripts/draw_grounding.py --model outputs/fgmm-tiny --video clip.mp4 --text "a red star spins" --output a.mp4
    python scripts/draw_grounding.py --model org/model --audio birds.wav --text "a bird sings" --output a.html
    python scripts/draw_grounding.py --model outputs/fgmm-tiny --dataset data/narrated --output grounding.png

PNG: a row for each phrase, with its weight in the text and how sure it is, the frames at the moments that it attends to
most, in their own size, and the log-mel spectrogram. MP4: the phrases as panels of a film with its sound. HTML: a page
that plays the file, which loads nothing from elsewhere. Phrases with hardly any weight are grey. With --dataset, PNG
only, the first clips of a corpus are drawn, each with the caption that fits it best.
"""

import argparse
from pathlib import Path

from fgmm_tools.cli import at_least, make_parser, run_command

ENDINGS = (".png", ".mp4", ".html")


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--model", required=True, help="model folder or name on the Hub")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--video", type=Path, help="video file, whose sound is grounded in, too")
    source.add_argument("--image", type=Path, help="image file")
    source.add_argument("--audio", type=Path, help="sound file, or video of which only the sound counts")
    source.add_argument("--dataset", help="folder of Parquet shards or a dataset on the Hub")
    parser.add_argument("--text", help="caption whose phrases are drawn; of a file")
    parser.add_argument("--start", type=float, default=0.0, help="where the part of the file begins, seconds")
    parser.add_argument("--end", type=float, help="where it ends, seconds; none: the end of the file")
    parser.add_argument("--dataset_config", help="which of the corpus' official splits or folds, where it has several")
    parser.add_argument("--split", default="test", help="split of the corpus")
    parser.add_argument("--num_clips", type=at_least(1), default=4, help="clips of the corpus, the first of the split")
    parser.add_argument("--output", type=Path, required=True, help="file for the result: .png, .mp4 or .html")
    args = parser.parse_args()
    if args.output.suffix not in ENDINGS:
        parser.error(f"--output {args.output} has none of the endings {', '.join(ENDINGS)}")
    if args.dataset and args.output.suffix != ".png":
        parser.error("with --dataset the --output is a PNG file, with the ending .png")
    if args.dataset and args.text:
        parser.error("--text is of a file; with --dataset captions of the corpus are drawn")
    if not args.dataset and not (args.text or "").strip():
        parser.error("give the --text whose phrases are drawn")
    if args.image and args.output.suffix == ".mp4":
        parser.error("an image has no times, so that no film can be drawn of it; give an --output of .png or .html")
    if args.start < 0 or (args.end is not None and args.end <= args.start):
        parser.error("--start must be 0 or more, and --end larger")
    return args


def main(args: argparse.Namespace) -> None:
    from fgmm_tools.records import claim_output, write_whole

    claim_output(args.output)  # before the imports, which take seconds

    from fgmm_tools.grounding.corpus import ground_clips
    from fgmm_tools.grounding.files import ground_path
    from fgmm_tools.grounding.film import draw_film
    from fgmm_tools.grounding.page import make_page
    from fgmm_tools.grounding.picture import draw_files
    from fgmm_tools.models import load_model

    model, processor = load_model(args.model)
    if args.dataset:
        files = ground_clips(model, processor, args.dataset, args.split, args.dataset_config, args.num_clips)
        draw_files(files, args.output)
        print(f"Drew {len(files)} clips into {args.output}.")
        return
    given = {"video": args.video, "image": args.image, "audio": args.audio}
    file = ground_path(model, processor, args.text, args.start, args.end, given)
    if args.output.suffix == ".png":
        draw_files([file], args.output)
    elif args.output.suffix == ".mp4":
        draw_film(file, args.output)
    else:
        write_whole(args.output, make_page(file))
    print(f"Drew {file.name} into {args.output}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
