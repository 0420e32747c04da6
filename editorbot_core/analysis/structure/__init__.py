"""Phrases and their material, by a trained model or estimated from the features."""
