"""A trained model that reads structure from bar features: phrase starts, place in the phrase, same material.

Dilated convolutions over the bars, then one attention layer whose weights are biased by how alike the bars are, so
that repetitions vote together, and three heads. The model is trained on annotated songs in folds of works, a network
per fold. A song nobody trained on is read by all networks, averaged; a song of the training set by the one network
that has not seen it, so that whoever learns from its structure meets errors as they will be on other songs.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from editorbot_core.annotations import Annotation, Section
from editorbot_core.bar_features import N_BAR_FEATURES, N_PAIR_FEATURES, BarFeatures
from editorbot_core.errors import FormatError
from editorbot_core.shipped import load_weights

N_PHASES = 4
STRUCTURE_MODEL = "structure"
# Labels of phrases that occur once (see the annotation format): two of them are not the same material.
_ONE_OFF = "Xx"


@dataclass(frozen=True)
class StructureNetConfig:
    """Shape of the network and how it is trained.

    Attributes:
        width: Channels.
        dilations: Of the convolutions, bars.
        dropout: Share of hidden values left out in training.
        feature_dropout: Share of input features left out, per song.
        noise: Deviation of the noise added to the inputs.
        crop: Fewest bars of a training excerpt; half of the examples are excerpts.
        epochs: Passes over the songs.
        batch_size: Songs per step.
        learning_rate: Largest, of AdamW with a cosine schedule.
        weight_decay: Of AdamW.
    """

    width: int = 64
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    dropout: float = 0.3
    feature_dropout: float = 0.3
    noise: float = 0.5
    crop: int = 48
    epochs: int = 30
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.1


class StructureNet(nn.Module):
    """Logits of phrase start (S, U), of the place mod 4 (S, U, 4) and of same material (S, U, U)."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, config: StructureNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or StructureNetConfig()
        width = config.width
        self.register_buffer("mean", torch.zeros(N_BAR_FEATURES))
        self.register_buffer("scale", torch.ones(N_BAR_FEATURES))
        self.inputs = nn.Linear(N_BAR_FEATURES, width)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in config.dilations)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in config.dilations)
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.n_heads = 4
        self.pair_bias = nn.Linear(N_PAIR_FEATURES, self.n_heads)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.final = nn.LayerNorm(width)
        self.start = nn.Linear(width, 1)
        self.phase = nn.Linear(width, N_PHASES)
        self.pair = nn.Sequential(nn.Linear(N_PAIR_FEATURES + 1, 16), nn.GELU(), nn.Linear(16, 1))
        self.embed = nn.Linear(width, 32)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, values: torch.Tensor, pairs: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map values (S, U, d), pairs (S, U, U, p) and mask (S, U) to the three kinds of logits."""
        s, u, _ = values.shape
        keep = mask[..., None].float()
        x = ((values - self.mean) / self.scale).clamp(-5, 5)
        if self.training:
            config = self.config
            x = x + config.noise * torch.randn_like(x)
            x = x * (torch.rand(s, 1, x.shape[2]) > config.feature_dropout)
        x = self.inputs(x) * keep
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = conv(norm(x).mul(keep).transpose(1, 2)).transpose(1, 2)
            x = x + self.dropout(F.gelu(y)) * keep
        q, k, v = self.qkv(self.attention_norm(x)).view(s, u, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.pair_bias(pairs).permute(0, 3, 1, 2).masked_fill(~mask[:, None, None], -1e4)
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + self.dropout(self.out(heard.transpose(1, 2).reshape(s, u, -1)))
        x = x + self.dropout(self.mlp(x))
        x = self.final(x)
        e = F.normalize(self.embed(x), dim=2)
        alike = e @ e.transpose(1, 2)
        pair = self.pair(torch.cat([pairs, alike[..., None]], dim=3))[..., 0]
        return self.start(x)[..., 0], self.phase(x), 0.5 * (pair + pair.transpose(1, 2))


@dataclass(frozen=True)
class StructureTargets:
    """What annotators say of the units of a song.

    Attributes:
        start: float32 (n_units,), 1 where all of them start a phrase, 0.75 where one of two does.
        phase: float32 (n_units, 4), how many of them give each place mod 4, as shares.
        same: float32 (n_units, n_units), share of them by whom two units have the same label.
        known: bool (n_units,), inside the annotated range.
    """

    start: np.ndarray
    phase: np.ndarray
    same: np.ndarray
    known: np.ndarray


def structure_targets(annotation: Annotation, unit_times: np.ndarray) -> StructureTargets:
    """Targets of the units that start at `unit_times`, s, (n_units,)."""

    def read(sections: Sequence[Section]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        unit = np.arange(len(unit_times))
        times = np.array([section.start_s for section in sections])
        first = np.abs(unit_times[:, None] - times[None]).argmin(axis=0)
        section_of = np.maximum(np.searchsorted(first, unit, side="right") - 1, 0)
        labels = [section.label for section in sections]
        material = np.array([-1 - i if label in _ONE_OFF else labels.index(label) for i, label in enumerate(labels)])
        material = material[section_of]
        return np.isin(unit, first), (unit - first[section_of]) % N_PHASES, material[:, None] == material[None]

    readings = [read(sections) for sections in (annotation.sections, annotation.sections_alt) if sections]
    agreed = np.mean([start for start, _, _ in readings], axis=0)
    sections = annotation.sections
    known = (unit_times >= sections[0].start_s - 0.5) & (unit_times < sections[-1].end_s - 0.1)
    return StructureTargets(
        start=np.where((agreed > 0) & (agreed < 1), 0.75, agreed).astype(np.float32),
        phase=np.mean([np.eye(N_PHASES)[phase] for _, phase, _ in readings], axis=0).astype(np.float32),
        same=np.mean([same for _, _, same in readings], axis=0).astype(np.float32),
        known=known,
    )


@dataclass(frozen=True)
class StructureExample:
    """One song on one grid, to train on."""

    work: str
    features: BarFeatures
    targets: StructureTargets


def _batch(examples: Sequence[StructureExample], rng: np.random.Generator, *, crop: int) -> tuple[torch.Tensor, ...]:
    """Padded values, pairs, mask, start, phase, same, known; every second example cut to `crop` units or more."""
    ranges = []
    for example in examples:
        n = len(example.features.values)
        length = int(rng.integers(crop, n + 1)) if n > crop and rng.random() < 0.5 else n
        first = int(rng.integers(0, n - length + 1))
        ranges.append(slice(first, first + length))
    longest = max(part.stop - part.start for part in ranges)
    n = len(examples)
    shapes = [(N_BAR_FEATURES,), (longest, N_PAIR_FEATURES), (), (), (N_PHASES,), (longest,), ()]
    out = [torch.zeros(n, longest, *shape) for shape in shapes]
    for i, (example, part) in enumerate(zip(examples, ranges, strict=True)):
        length = part.stop - part.start
        f, t = example.features, example.targets
        rows = (f.values[part], f.pairs[part, part], np.ones(length), t.start[part], t.phase[part])
        for tensor, row in zip(out, (*rows, t.same[part, part], t.known[part]), strict=True):
            tensor[i][tuple(slice(size) for size in row.shape)] = torch.as_tensor(row, dtype=torch.float32)
    return tuple(out)


def structure_loss(net: StructureNet, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Start (weight 1), place (0.5; right if any annotator agrees) and same material (0.5), means over known units."""
    values, pairs, mask, start, phase, same, known = batch
    at_start, at_phase, at_same = net(values, pairs, mask > 0)
    inside = known > 0
    start_loss = F.binary_cross_entropy_with_logits(at_start, start, reduction="none")[inside].mean()
    agreed = at_phase.log_softmax(2).masked_fill(phase <= 0, -1e9).logsumexp(2)
    others = ~torch.eye(values.shape[1], dtype=torch.bool)
    both = inside[:, :, None] & inside[:, None] & others
    same_loss = F.binary_cross_entropy_with_logits(at_same, same, reduction="none")[both].mean()
    return start_loss - 0.5 * agreed[inside].mean() + 0.5 * same_loss


def train_structure_net(
    examples: Sequence[StructureExample], *, config: StructureNetConfig | None = None, seed: int = 0
) -> StructureNet:
    """Train one network; the same examples and seed give the same network."""
    config = config or StructureNetConfig()
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = StructureNet(config)
        rows = np.concatenate([example.features.values for example in examples])
        net.mean.copy_(torch.from_numpy(rows.mean(axis=0)))
        net.scale.copy_(torch.from_numpy(rows.std(axis=0)).clamp(min=1e-3))
        n_batches = max(len(examples) // config.batch_size, 1)
        optimiser = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, config.learning_rate, total_steps=config.epochs * n_batches + 1, pct_start=0.1
        )
        net.train()
        for _ in range(config.epochs):
            for index in np.array_split(rng.permutation(len(examples)), n_batches):
                loss = structure_loss(net, _batch([examples[i] for i in index], rng, crop=config.crop))
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimiser.step()
                schedule.step()
    return net.eval()


@dataclass(frozen=True)
class StructureProbabilities:
    """What the model says of the units of a song.

    Attributes:
        start: float64 (n_units,), a phrase starts here.
        phase: float64 (n_units, 4), place mod 4 in the phrase; rows sum to 1.
        same: float64 (n_units, n_units), two units have the same material.
    """

    start: np.ndarray
    phase: np.ndarray
    same: np.ndarray


@torch.no_grad()
def net_probabilities(nets: Sequence[StructureNet], features: BarFeatures) -> StructureProbabilities:
    """Probabilities by the mean of the networks' logits, which stays about as sure as one network is.

    Whatever learns from the structure of training songs sees single networks; a mean of probabilities is less sure than
    those, and looks to it like a song without clear phrases.
    """
    values, pairs = torch.from_numpy(features.values)[None], torch.from_numpy(features.pairs)[None]
    mask = torch.ones(values.shape[:2], dtype=torch.bool)
    answers = [net(values, pairs, mask) for net in nets]
    start, phase, same = (torch.stack([answer[i] for answer in answers]).mean(0)[0].double() for i in range(3))
    return StructureProbabilities(start.sigmoid().numpy(), phase.softmax(1).numpy(), same.sigmoid().numpy())


def fold_of(work: str, n_folds: int) -> int:
    """The fold a work belongs to, by a hash of its id."""
    return int(hashlib.sha256(work.encode()).hexdigest()[:8], 16) % n_folds


@dataclass(frozen=True)
class StructureModel:
    """Networks, one per fold, and the works they were trained on.

    Attributes:
        nets: Network `k` has not seen the works of fold `k`.
        works: All works of the training set.
    """

    nets: tuple[StructureNet, ...]
    works: frozenset[str]

    def nets_for(self, work: str) -> tuple[StructureNet, ...]:
        """The networks that have not seen this work."""
        return (self.nets[fold_of(work, len(self.nets))],) if work in self.works else self.nets

    def probabilities(self, features: BarFeatures, work: str) -> StructureProbabilities:
        """Read one song; `work` is the composition it is a recording of (see `library.SongRecord`)."""
        return net_probabilities(self.nets_for(work), features)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays, to be saved; weights in half precision."""
        stored = {
            f"{k}/{name}": value.numpy().astype(np.float16 if value.ndim > 1 else np.float32)
            for k, net in enumerate(self.nets)
            for name, value in net.state_dict().items()
        }
        return {**stored, "works": np.array(sorted(self.works))}


def structure_model_of(arrays: dict[str, np.ndarray]) -> StructureModel:
    """The model that `StructureModel.arrays` describes.

    Raises:
        FormatError: If the arrays are not those of this network.
    """
    try:
        n_folds = 1 + max(int(name.split("/")[0]) for name in arrays if "/" in name)
        nets = []
        for k in range(n_folds):
            net = StructureNet()
            prefix = f"{k}/"
            net.load_state_dict(
                {
                    name.removeprefix(prefix): torch.from_numpy(array.astype(np.float32))
                    for name, array in arrays.items()
                    if name.startswith(prefix)
                }
            )
            nets.append(net.eval().requires_grad_(False))
        return StructureModel(tuple(nets), frozenset(str(work) for work in arrays["works"]))
    except (KeyError, ValueError, RuntimeError) as error:
        raise FormatError(f"not the weights of a structure model: {error}") from error


@cache
def shipped_structure_model() -> StructureModel:
    """The model that comes with the package."""
    return structure_model_of(load_weights(STRUCTURE_MODEL))
