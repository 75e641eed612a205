"""Data sets as the files that other trainers read: examples, and one function a format."""
