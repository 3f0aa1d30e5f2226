"""Thinking aloud before an answer."""
