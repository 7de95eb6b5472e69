"""Where the checkout is, whose cards and commands the library of the commands works on."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "model_cards"
