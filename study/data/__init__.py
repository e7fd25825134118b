"""Corpora, and the way from audio and transcripts to batches."""
