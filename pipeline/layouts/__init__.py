"""Trees that trainers read: EveryDream folders with their small files, kohya folders and dataset TOML."""
