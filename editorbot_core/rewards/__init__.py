"""Rewards: the protocol, the dense terms, and the model learned from preferences."""
