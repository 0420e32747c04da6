"""What a policy's edits are like."""

import torch

from editorbot_core.editing.batches import collate
from editorbot_core.policy.losses import categorical_kl
from editorbot_core.policy.network import Policy
from editorbot_core.policy.rollout import edit_statistics, log_prob, sample_edits
from editorbot_core.songs.song import Song

# Length at which a policy is described, and edits sampled of every song.
RATIO = 0.5
_EDITS_PER_SONG = 4


def policy_report(policy: Policy, reference: Policy, songs: list[Song], *, seed: int) -> dict[str, float]:
    """What a policy's edits at half length are like, and how far it is from the reference, nat per unit."""
    device = policy.device
    batch = collate(songs).to(device)
    index = torch.arange(len(songs), device=device).repeat_interleave(_EDITS_PER_SONG)
    rollout = sample_edits(
        policy,
        batch,
        song_index=index,
        target_ratio=torch.full((len(index),), RATIO, device=device),
        generator=torch.Generator(device).manual_seed(seed),
    )
    with torch.no_grad():
        judged = log_prob(reference, rollout.edits)
    mask = judged.unit_mask
    kl = categorical_kl(rollout.log_softmax[mask], judged.log_softmax[mask]).mean()
    return {
        "kl_ref_unit": float(kl),
        "entropy": float(rollout.entropy[mask].mean()),
        "edit/mask_forced_frac": rollout.mask_forced_frac,
        **edit_statistics(rollout.edits),
    }
