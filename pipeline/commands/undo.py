"""Take back the last change of files.

Files moved, linked, dropped or written by the last command that changed any are put back as they were, byte
for byte, and what that command noted in the catalogue is taken back with them. Again takes back the one
before.
"""
