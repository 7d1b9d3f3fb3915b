"""Training on phantoms: data, order pretext, fine-tuning, release."""
