"""Scores of probabilities against labels, with their uncertainty."""
