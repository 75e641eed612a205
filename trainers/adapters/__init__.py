"""Adapters: one file each, with its delta (the reference), its low-rank form (the fast way) and its file
grammar.
"""
