"""Older studies: looked up in the archives and fetched when a case needs them."""
