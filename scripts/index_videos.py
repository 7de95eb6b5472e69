r"""Indexes the videos, sounds and images in folders, so that search_videos.py finds moments in them.

    python scripts/index_videos.py --model outputs/fgmm-tiny --videos ~/Videos --index indexes/videos
    python scripts/index_videos.py --index indexes/videos           # takes in what is new, forgets what is gone
    python scripts/index_videos.py --index indexes/videos --watch   # and goes on whenever something changes
    python scripts/index_videos.py --model openai/clip-vit-base-patch32 --videos ~/Videos --window_seconds 8 \
        --index indexes/clip
    python scripts/index_videos.py --model outputs/fgmm-tiny --dataset data/narrated --split test \
        --index indexes/narrated

Installed, it is the command fgmm-index. Files are cut into windows that overlap; of each its embedding is kept, and a
few regions. Subtitles beside a file (clip.srt, clip.en.vtt) or inside it are searched, too. What is stopped continues:
each finished file is kept. Searches see a whole state, also meanwhile. Files that cannot be decoded are listed in
problems.jsonl in the folder of the index.
"""

from fgmm_tools.cli import run_command
from fgmm_tools.search.index_command import main, parse_arguments

if __name__ == "__main__":
    run_command(lambda: parse_arguments(__doc__), main)
