"""EveryDream trees to kohya's `N_name` folders and back, as plans."""
