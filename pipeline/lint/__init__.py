"""What `celforge check` looks for in a tree of pictures and captions: traps, one module a kind of file."""
