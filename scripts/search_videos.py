r"""Finds moments in indexed videos, sounds and images by words, a sound, a picture or a clip.

    python scripts/search_videos.py --index indexes/videos "two eggs into a bowl"
    python scripts/search_videos.py --index indexes/videos "a dog barks" --in trips --after 2026-01-01 --html page.html
    python scripts/search_videos.py --index indexes/videos --sound bark.wav --export_clips clips --edl found.edl
    python scripts/search_videos.py --index indexes/videos --clip trip.mp4 --start 12 --end 17 --json

Installed, it is the command fgmm-search. Scores are standard deviations above what the query gives on windows of the
index at random. "Nothing matches" means that the best is no better than what queries that nothing fits reach there.
"""

from fgmm_tools.cli import run_command
from fgmm_tools.search.search_command import main, parse_arguments

if __name__ == "__main__":
    run_command(lambda: parse_arguments(__doc__), main)
