"""Commands about a project itself: set up, look at, take back. The work on pictures is in `stages` and
`trainers`.
"""
