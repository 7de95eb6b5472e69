"""Grounding: how well the maps of phrases agree with where and when things are seen and heard."""
