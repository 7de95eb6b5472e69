"""The library of the commands in scripts/: what they share, and what is too long for a command."""
