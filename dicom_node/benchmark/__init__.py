"""Figures with peers side by side in one run: reception, sending, the way of an image, growth of the ledger."""
