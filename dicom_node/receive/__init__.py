"""Receive: listener, instance files, facts."""
