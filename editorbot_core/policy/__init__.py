"""The policy: the environment, what it observes, the network, and learning by imitation, PPO and DPO.

Public: `Policy` (`network`), `Episodes` (`environment`), `sample_edits` (`rollout`), `train_ppo` (`ppo`), `train_dpo`
(`dpo`), `warm_start` (`warm_start`), `policy_editor` (`editors`), `load_policy` (`files`).
"""
