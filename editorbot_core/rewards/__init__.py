"""Rewards: the dense and the learned reward, their mix, training the reward model, and the choice of pairs to rate.

Public: `Reward`, `RewardFunction` (`base`), `dense_reward` (`dense`), `RewardEnsemble`, `load_reward` (`learned`),
`train_reward_model` (`training`), `RewardPair` (`mixing`), `rank_pairs` (`queries`).
"""
