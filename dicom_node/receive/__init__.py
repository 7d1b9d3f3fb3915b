"""Reception: bytes become durable first and are read later, where a crash is harmless."""
