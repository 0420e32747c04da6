"""The update of PPO on a game that everyone knows, so that it is seen to be PPO whatever songs are like."""

import gymnasium
import pytest
import torch
from torch import nn

from editorbot_core.policy.config import PPOConfig
from editorbot_core.policy.losses import categorical_kl
from editorbot_core.policy.ppo_update import loss_sums, standardised_advantages, update_policy
from editorbot_core.policy.rollout import compute_gae
from editorbot_core.policy.selection import decayed

N_GAMES, N_STEPS, N_ITERATIONS = 8, 128, 25
GAMMA = 0.99
CONFIG = PPOConfig(epochs=6, n_minibatches=4, learning_rate=1e-3, gae_lambda=0.95)


class Player(nn.Module):
    """Two small networks, for the logits and for the value."""

    def __init__(self):
        super().__init__()
        self.logits, self.value = (
            nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, size))
            for size in (2, 1)
        )

    def forward(self, seen):
        return self.logits(seen).log_softmax(-1), self.value(seen)[..., 0]


def play(player, games, seen, generator):
    """`N_STEPS` of every game; tensors (n_games, n_steps, ...), and what is seen next."""
    steps = []
    for _ in range(N_STEPS):
        with torch.no_grad():
            log_softmax, values = player(seen)
        actions = torch.multinomial(log_softmax.exp(), 1, generator=generator)
        following, rewards, dones = [], torch.zeros(len(games)), torch.zeros(len(games), dtype=torch.bool)
        for i, game in enumerate(games):
            observation, reward, fallen, too_long, _ = game.step(int(actions[i]))
            rewards[i], dones[i] = reward, fallen or too_long
            if too_long and not fallen:
                with torch.no_grad():
                    rewards[i] += GAMMA * player(torch.as_tensor(observation))[1]
            following.append(torch.as_tensor(game.reset()[0] if dones[i] else observation))
        steps.append((seen, actions[:, 0], log_softmax.gather(1, actions)[:, 0], values, rewards, dones))
        seen = torch.stack(following)
    return [torch.stack(column, dim=1) for column in zip(*steps, strict=True)], seen


def improve(player, optimizer, experience, last_value, generator):
    seen, actions, old, values, rewards, dones = experience
    estimates = compute_gae(rewards, values, dones, last_value, gamma=GAMMA, gae_lambda=CONFIG.gae_lambda)
    advantages = standardised_advantages(estimates.advantages, torch.ones_like(dones)).flatten()
    seen, actions, old, returns = seen.flatten(0, 1), actions.flatten(), old.flatten(), estimates.returns.flatten()

    def sums(rows):
        log_softmax, new_values = player(seen[rows])
        return loss_sums(
            log_ratio=log_softmax.gather(1, actions[rows, None])[:, 0] - old[rows],
            advantages=advantages[rows],
            values=new_values,
            returns=returns[rows],
            entropy=-(log_softmax.exp() * log_softmax).sum(-1),
            kl=categorical_kl(log_softmax, log_softmax),
            clip_coef=CONFIG.clip_coef,
        )

    return update_policy(
        player,
        optimizer,
        group=torch.arange(len(actions)),
        n_decisions=torch.ones_like(actions),
        sums=sums,
        config=CONFIG,
        ent_coef=0.0,
        kl_weight=0.0,
        generator=generator,
    )


@torch.no_grad()
def mean_return(player, *, n_episodes=20):
    """Of the likeliest actions, in games that were never trained on."""
    total = 0.0
    with gymnasium.make("CartPole-v1", disable_env_checker=True) as game:
        for seed in range(n_episodes):
            seen, over = game.reset(seed=10_000 + seed)[0], False
            while not over:
                seen, reward, fallen, too_long, _ = game.step(int(player(torch.as_tensor(seen))[0].argmax()))
                total += reward
                over = fallen or too_long
    return total / n_episodes


@pytest.mark.slow
def test_the_update_solves_cartpole():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        player = Player()
    optimizer = torch.optim.Adam(player.parameters(), lr=CONFIG.learning_rate, eps=CONFIG.adam_eps)
    games = [gymnasium.make("CartPole-v1", disable_env_checker=True) for _ in range(N_GAMES)]
    seen = torch.stack([torch.as_tensor(game.reset(seed=i)[0]) for i, game in enumerate(games)])
    before = mean_return(player)
    for iteration in range(N_ITERATIONS):
        # At a constant rate the player goes on losing and finding the way to stand for long.
        for parameters in optimizer.param_groups:
            parameters["lr"] = decayed(CONFIG.learning_rate, 0.0, step=iteration, total_steps=N_ITERATIONS)
        experience, seen = play(player, games, seen, generator)
        with torch.no_grad():
            last_value = player(seen)[1]
        improve(player, optimizer, experience, last_value, generator)
    for game in games:
        game.close()
    assert before < 100
    assert mean_return(player) >= 195


def test_standardised_advantages_have_mean_0_and_deviation_1_over_the_mask():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    result = standardised_advantages(torch.tensor([[1.0, 2.0, 99.0], [3.0, 4.0, 5.0]]), mask)
    assert result[0, 2] == 0
    assert float(result[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(result[mask].square().mean()) == pytest.approx(1)
