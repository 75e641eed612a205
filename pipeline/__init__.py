"""The floor that every command stands on: settings, catalogue, jobs, undo. Imports neither stages nor
trainers.
"""

__version__ = "0.1.0"
