"""Whole answers, kept for whoever asks the very same again."""
