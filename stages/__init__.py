"""The verbs of data preparation: one verb, one file, one command. Stages never import each other."""
