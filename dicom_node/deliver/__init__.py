"""Delivery: encoded bytes out of the outbox into archives, each destination on its own."""
