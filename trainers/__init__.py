"""From a tree of pictures and captions to a model file. Never imports stages: they meet on disk, in a
layout.
"""
