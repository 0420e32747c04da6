"""Training: one run from songs to a policy, rounds of collecting and learning, and the study.

Public: `Session`, `improve` (`session`), `learn_in_rounds` (`rounds`), `run_study` (`study`).
"""
