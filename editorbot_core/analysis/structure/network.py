"""A trained model that reads structure from bar features: phrase starts, place in the phrase, same material.

Two blocks, each of dilated convolutions over the bars and an attention layer whose weights are biased by how alike the
bars are, so that repetitions vote together, and by how many bars they are apart; then three heads. The model is trained
on annotated songs in folds of works, a few networks per fold. A song nobody trained on is read by all networks,
averaged; a song of the training set by the networks that have not seen it, so that whoever learns from its structure
meets errors as they will be on other songs.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from editorbot_core.analysis.beats.annotations import Annotation, Section
from editorbot_core.analysis.structure.bars import N_BAR_FEATURES, N_PAIR_FEATURES, BarFeatures
from editorbot_core.analysis.structure.structure import N_PHASES
from editorbot_core.analysis.weights import load_weights
from editorbot_core.base.errors import FormatError

STRUCTURE_MODEL = "structure"

# Labels of phrases that occur once (see the annotation format): two of them are not the same material.
_ONE_OFF = "Xx"


@dataclass(frozen=True)
class StructureNetConfig:
    """Shape of the network and how it is trained.

    Attributes:
        width: Channels.
        dilations: Of the convolutions of each block, bars.
        max_lag: Bars beyond which attention does not tell distances apart.
        dropout: Share of hidden values left out in training.
        feature_dropout: Share of input features left out, per song.
        noise: Deviation of the noise added to the inputs.
        crop: Fewest bars of a training excerpt.
        excerpts: Share of the examples that are excerpts.
        epochs: Passes over the songs.
        batch_size: Songs per step.
        learning_rate: Largest, of AdamW with a cosine schedule.
        weight_decay: Of AdamW.
        averaging: Decay per step of the mean over the weights of the second half of training, which is what is kept.
    """

    width: int = 64
    dilations: tuple[tuple[int, ...], ...] = ((1, 2, 4, 8), (1, 2))
    max_lag: int = 16
    dropout: float = 0.3
    feature_dropout: float = 0.3
    noise: float = 0.5
    crop: int = 48
    excerpts: float = 0.7
    epochs: int = 8
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    averaging: float = 0.98


class _Block(nn.Module):
    """Convolutions, attention and a perceptron, each added to what came in; all (S, U, width)."""

    def __init__(self, width: int, dilations: Sequence[int], max_lag: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = 4
        self.max_lag = max_lag
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in dilations)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in dilations)
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.pair_bias = nn.Linear(N_PAIR_FEATURES, self.n_heads)
        self.lag_bias = nn.Parameter(torch.zeros(2 * max_lag + 1, self.n_heads))
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, pairs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        s, u, _ = x.shape
        keep = mask[..., None].float()
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = conv(norm(x).mul(keep).transpose(1, 2)).transpose(1, 2)
            x = x + self.dropout(F.gelu(y)) * keep
        q, k, v = self.qkv(self.attention_norm(x)).view(s, u, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        unit = torch.arange(u)
        lag = (unit[None] - unit[:, None]).clamp(-self.max_lag, self.max_lag) + self.max_lag
        bias = (self.pair_bias(pairs) + self.lag_bias[lag]).permute(0, 3, 1, 2)
        bias = bias.masked_fill(~mask[:, None, None], -1e4)
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + self.dropout(self.out(heard.transpose(1, 2).reshape(s, u, -1)))
        return x + self.dropout(self.mlp(x))


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
        self.blocks = nn.ModuleList(
            _Block(width, dilations, config.max_lag, config.dropout) for dilations in config.dilations
        )
        self.final = nn.LayerNorm(width)
        self.start = nn.Linear(width, 1)
        self.phase = nn.Linear(width, N_PHASES)
        self.pair = nn.Sequential(nn.Linear(N_PAIR_FEATURES + 1, 16), nn.GELU(), nn.Linear(16, 1))
        self.embed = nn.Linear(width, 32)

    def forward(
        self, values: torch.Tensor, pairs: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map values (S, U, d), pairs (S, U, U, p) and mask (S, U) to the three kinds of logits."""
        x = ((values - self.mean) / self.scale).clamp(-5, 5)
        if self.training:
            config = self.config
            x = x + config.noise * torch.randn_like(x)
            x = x * (torch.rand(len(x), 1, x.shape[2]) > config.feature_dropout)
        x = self.inputs(x) * mask[..., None].float()
        for block in self.blocks:
            x = block(x, pairs, mask)
        x = self.final(x)
        e = F.normalize(self.embed(x), dim=2)
        alike = e @ e.transpose(1, 2)
        pair = self.pair(torch.cat([pairs, alike[..., None]], dim=3))[..., 0]
        return self.start(x)[..., 0], self.phase(x), pair


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


def _batch(
    examples: Sequence[StructureExample], rng: np.random.Generator, *, crop: int, excerpts: float
) -> tuple[torch.Tensor, ...]:
    """Padded values, pairs, mask, start, phase, same, known; a share `excerpts` is cut to `crop` units or more."""
    ranges = []
    for example in examples:
        n = len(example.features.values)
        length = int(rng.integers(crop, n + 1)) if n > crop and rng.random() < excerpts else n
        first = int(rng.integers(0, n - length + 1))
        ranges.append(slice(first, first + length))
    longest = max(part.stop - part.start for part in ranges)
    shapes = [(N_BAR_FEATURES,), (longest, N_PAIR_FEATURES), (), (), (N_PHASES,), (longest,), ()]
    out = [np.zeros((len(examples), longest, *shape), dtype=np.float32) for shape in shapes]
    for i, (example, part) in enumerate(zip(examples, ranges, strict=True)):
        f, t = example.features, example.targets
        rows = (f.values[part], f.pairs[part, part], np.ones(part.stop - part.start), t.start[part], t.phase[part])
        for array, row in zip(out, (*rows, t.same[part, part], t.known[part]), strict=True):
            array[i][tuple(slice(size) for size in row.shape)] = row
    return tuple(map(torch.from_numpy, out))


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
        averaged = torch.optim.swa_utils.AveragedModel(
            net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.averaging)
        )
        lengths = np.array([len(example.features.values) for example in examples])
        step = 0
        net.train()
        for _ in range(config.epochs):
            # Songs of like lengths share a batch: less padding.
            order = np.argsort(lengths * rng.uniform(0.8, 1.25, len(lengths)))
            batches = np.array_split(order, n_batches)
            for i in rng.permutation(n_batches):
                batch = _batch([examples[j] for j in batches[i]], rng, crop=config.crop, excerpts=config.excerpts)
                loss = structure_loss(net, batch)
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                step += 1
                if 2 * step > config.epochs * n_batches:
                    averaged.update_parameters(net)
        net.load_state_dict(averaged.module.state_dict())
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


class StructureLogits(NamedTuple):
    """Logits of one song: start float64 (n_units,), phase (n_units, 4), same (n_units, n_units)."""

    start: np.ndarray
    phase: np.ndarray
    same: np.ndarray


class Temperatures(NamedTuple):
    """What the logits of each kind are divided by, so that probabilities come true as often as they say."""

    start: float = 1.0
    phase: float = 1.0
    same: float = 1.0


_NO_TEMPERATURES = Temperatures()


@torch.no_grad()
def net_logits(nets: Sequence[StructureNet], features: BarFeatures) -> StructureLogits:
    """Mean of the networks' logits, which stays about as sure as one network is.

    Whatever learns from the structure of training songs sees few networks; a mean of probabilities is less sure than
    those, and looks to it like a song without clear phrases.
    """
    values, pairs = torch.from_numpy(features.values)[None], torch.from_numpy(features.pairs)[None]
    mask = torch.ones(values.shape[:2], dtype=torch.bool)
    answers = [net(values, pairs, mask) for net in nets]
    start, phase, same = (torch.stack([answer[i] for answer in answers]).mean(0)[0].double() for i in range(3))
    return StructureLogits(start.numpy(), phase.numpy(), 0.5 * (same + same.T).numpy())


def to_probabilities(logits: StructureLogits, temperatures: Temperatures) -> StructureProbabilities:
    """Probabilities by the logits over their temperatures."""
    start, phase, same = (torch.from_numpy(x / t) for x, t in zip(logits, temperatures, strict=True))
    return StructureProbabilities(start.sigmoid().numpy(), phase.softmax(1).numpy(), same.sigmoid().numpy())


def fit_temperatures(logits: Sequence[StructureLogits], targets: Sequence[StructureTargets]) -> Temperatures:
    """The temperatures, among steps of 5 % from 0.5 to 4, with the least mean cross-entropy over known units.

    Guo et al. 2017. The start of a phrase by one of two annotators counts as half a start.
    """
    starts, phases, sames = [], [], []
    for song, target in zip(logits, targets, strict=True):
        known = target.known
        agreed = np.where((target.start > 0) & (target.start < 1), 0.5, target.start)
        starts.append((song.start[known], agreed[known]))
        phases.append((song.phase[known], target.phase[known] > 0))
        both = known[:, None] & known[None] & ~np.eye(len(known), dtype=bool)
        sames.append((song.same[both], target.same[both]))

    def binary(pairs: Sequence[tuple[np.ndarray, np.ndarray]], temperature: float) -> float:
        # -log p = log(1 + exp(x)) - y x
        losses = [(np.logaddexp(0.0, x / temperature) - y * x / temperature).mean() for x, y in pairs]
        return float(np.mean(losses))

    def places(temperature: float) -> float:
        losses = []
        for x, right in phases:
            scaled = x / temperature
            of_right = np.where(right, scaled, -np.inf)
            losses.append((np.logaddexp.reduce(scaled, axis=1) - np.logaddexp.reduce(of_right, axis=1)).mean())
        return float(np.mean(losses))

    choices = [float(t) for t in np.geomspace(0.5, 4.0, 43)]
    return Temperatures(
        min(choices, key=lambda t: binary(starts, t)),
        min(choices, key=places),
        min(choices, key=lambda t: binary(sames, t)),
    )


def fold_of(work: str, n_folds: int) -> int:
    """The fold a work belongs to, by a hash of its id."""
    return int(hashlib.sha256(work.encode()).hexdigest()[:8], 16) % n_folds


@dataclass(frozen=True)
class StructureModel:
    """Networks, as many per fold, and the works they were trained on.

    Attributes:
        nets: Network `k` has not seen the works of fold `k % n_folds`.
        works: All works of the training set.
        n_folds: Folds of works.
        temperatures: Of the mean logits.
    """

    nets: tuple[StructureNet, ...]
    works: frozenset[str]
    n_folds: int
    temperatures: Temperatures = _NO_TEMPERATURES

    def nets_for(self, work: str) -> tuple[StructureNet, ...]:
        """The networks that have not seen this work."""
        return self.nets[fold_of(work, self.n_folds) :: self.n_folds] if work in self.works else self.nets

    def probabilities(self, features: BarFeatures, work: str) -> StructureProbabilities:
        """Read one song; `work` is the composition it is a recording of (see `songs.library.SongRecord`)."""
        return to_probabilities(net_logits(self.nets_for(work), features), self.temperatures)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays, to be saved; weights in half precision."""
        stored = {
            f"{k}/{name}": value.numpy().astype(np.float16 if value.ndim > 1 else np.float32)
            for k, net in enumerate(self.nets)
            for name, value in net.state_dict().items()
        }
        return {
            **stored,
            "works": np.array(sorted(self.works)),
            "n_folds": np.array(self.n_folds),
            "temperatures": np.array(self.temperatures),
        }


def structure_model_of(arrays: dict[str, np.ndarray]) -> StructureModel:
    """The model that `StructureModel.arrays` describes.

    Raises:
        FormatError: If the arrays are not those of this network.
    """
    try:
        n_nets = 1 + max(int(name.split("/")[0]) for name in arrays if "/" in name)
        nets = []
        for k in range(n_nets):
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
        works = frozenset(str(work) for work in arrays["works"])
        return StructureModel(
            tuple(nets), works, int(arrays["n_folds"]), Temperatures(*arrays["temperatures"].tolist())
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(f"not the weights of a structure model: {error}") from error


@cache
def shipped_structure_model() -> StructureModel:
    """The model that comes with the package."""
    return structure_model_of(load_weights(STRUCTURE_MODEL))
