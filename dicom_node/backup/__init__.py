"""Backup of a node at work, its check, and the way back."""
