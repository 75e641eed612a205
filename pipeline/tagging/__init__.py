"""Taggers: models described as data, their labels, pixels and probabilities, and what is asked of tags."""
