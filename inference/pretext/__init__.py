"""Self-supervised tasks that need no label."""
