"""What both sides of a tree of pictures need: stages write it, trainers read it."""
