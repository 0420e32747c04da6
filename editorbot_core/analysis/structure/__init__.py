"""Phrases and material: read by a trained model, or estimated from the features."""
