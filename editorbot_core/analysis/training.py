"""Training of the two models that listen: which reading of the beats is right, and where phrases are.

Needs audio files with annotations beside them. Works are divided into folds; every figure that is reported for a song
comes from networks that have not seen its work.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from editorbot_core.analysis.beats.annotations import Annotation, find_annotation, load_annotation
from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.beats.readings import RANKER, Instants, Reading, reading_features, reading_probabilities
from editorbot_core.analysis.beats.tracking import TrackerConfig, band_onsets, beat_activation, find_readings
from editorbot_core.analysis.features.context import beat_context
from editorbot_core.analysis.features.extraction import decode_song, frames_to_features
from editorbot_core.analysis.structure.bars import BarFeatures, bar_features
from editorbot_core.analysis.structure.network import (
    STRUCTURE_MODEL,
    StructureExample,
    StructureModel,
    StructureTargets,
    fit_temperatures,
    fold_of,
    net_logits,
    structure_targets,
    train_structure_net,
)
from editorbot_core.analysis.weights import FOLDER, save_weights
from editorbot_core.audio.files import find_audio
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.progress import Progress

N_FOLDS = 5
# Networks per fold: their mean is right more often than one, and more of them gain little.
N_NETS = 2
# Songs made of each recording and grid by leaving out phrases.
N_SHORTENED = 2
_FEWEST_PHRASES, _FEWEST_UNITS = 3, 16
_EXCHANGED = 0.4
_BEAT_TOLERANCE_S = 0.07
_BAR_TOLERANCE_S = 0.12
_READING_TEMPERATURE = 0.05


@dataclass(frozen=True)
class RankerConfig:
    """How the networks that rank readings are trained.

    Attributes:
        n_networks: How many are averaged.
        hidden: Width of the hidden layer.
        epochs: Passes over the songs.
        batch_size: Songs per step.
        learning_rate: Largest, of AdamW with a cosine schedule.
        weight_decay: Of AdamW.
        noise: Deviation of the noise added to the standardised inputs.
    """

    n_networks: int = 4
    hidden: int = 24
    epochs: int = 80
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.3
    noise: float = 0.2


@dataclass(frozen=True)
class RankedSong:
    """The readings of one song.

    Attributes:
        path: The audio file.
        work: The composition.
        features: As `reading_features`, (n_readings, d).
        quality: How right each reading is, in [0, 1], (n_readings,): mean F-measure of its beats and its downbeats.
    """

    path: Path
    work: str
    features: np.ndarray
    quality: np.ndarray


def f_measure(reference: np.ndarray, estimated: np.ndarray, tolerance_s: float = _BEAT_TOLERANCE_S) -> float:
    """F-measure of instants, s, each matched to the nearest within the tolerance."""
    if len(reference) == 0 or len(estimated) == 0:
        return 0.0
    distance = np.abs(reference[:, None] - estimated[None])
    recall = (distance.min(axis=1) <= tolerance_s).mean()
    precision = (distance.min(axis=0) <= tolerance_s).mean()
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def annotated_songs(folders: Sequence[Path]) -> list[tuple[Path, Annotation]]:
    """Audio files with an annotation beside them, in order.

    Raises:
        ParameterError: If there are none.
    """
    songs = []
    for folder in folders:
        for path in find_audio(folder):
            beside = find_annotation(path)
            if beside is not None:
                songs.append((path, load_annotation(beside)))
    if not songs:
        raise ParameterError(f"no annotated songs in {', '.join(map(str, folders))}; annotations lie beside the audio")
    return songs


def reading_qualities(instants: Instants, readings: Sequence[Reading], grid: BeatGrid) -> np.ndarray:
    """How right each reading is, in [0, 1]: mean F-measure of its beats and its downbeats, given the true grid."""
    quality = []
    for reading in readings:
        times = instants.times[reading.chosen]
        inside = (times > grid.times[0] - 0.3) & (times < grid.times[-1] + 0.3)
        first = inside & (reading.positions == 1)
        quality.append(0.5 * f_measure(grid.times, times[inside]) + 0.5 * f_measure(grid.downbeats, times[first]))
    return np.array(quality)


def rank_song(path: Path, annotation: Annotation) -> RankedSong:
    """Features and quality of all readings of one song."""
    frames, config = decode_song(path).frames, TrackerConfig()
    onsets = band_onsets(frames.mel, compression=config.compression)
    activation = beat_activation(onsets, config=config)
    instants, readings = find_readings(frames, onsets, activation, config=config)
    quality = reading_qualities(instants, readings, annotation.grid)
    return RankedSong(path, annotation.track_id, reading_features(instants, readings), quality)


class _RankerNet(nn.Module):
    def __init__(self, n_features: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_features, hidden)
        self.out = nn.Linear(hidden, 1, bias=False)
        self.skip = nn.Linear(n_features, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.dropout(F.gelu(self.hidden(F.dropout(x, 0.1, self.training))), 0.2, self.training)
        return (self.out(hidden) + self.skip(x))[..., 0]


def train_ranker(songs: Sequence[RankedSong], *, config: RankerConfig | None = None) -> dict[str, np.ndarray]:
    """Weights of the networks, as `beats.readings.reading_probabilities` takes them.

    Networks learn the distribution softmax(quality / 0.05) over the readings of each song.
    """
    config = config or RankerConfig()
    rows = np.concatenate([song.features for song in songs])
    mean, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-3
    n_readings = max(len(song.features) for song in songs)
    x = torch.zeros(len(songs), n_readings, rows.shape[1])
    target, missing = torch.zeros(len(songs), n_readings), torch.ones(len(songs), n_readings, dtype=torch.bool)
    for i, song in enumerate(songs):
        n = len(song.features)
        x[i, :n] = torch.from_numpy((song.features - mean) / scale)
        target[i, :n] = torch.from_numpy(song.quality / _READING_TEMPERATURE).softmax(0)
        missing[i, :n] = False
    weights: dict[str, list[np.ndarray]] = {}
    for seed in range(config.n_networks):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = _RankerNet(x.shape[2], config.hidden)
            optimiser = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.epochs)
            for _ in range(config.epochs):
                for index in torch.randperm(len(songs)).split(config.batch_size):
                    noisy = x[index] + config.noise * torch.randn_like(x[index])
                    log_p = net(noisy).masked_fill(missing[index], -1e9).log_softmax(1)
                    loss = -(target[index] * log_p).sum(1).mean()
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                schedule.step()
        state = {name: value.detach().numpy() for name, value in net.state_dict().items()}
        for name, array in (
            ("mean", mean),
            ("scale", scale),
            ("hidden_weight", state["hidden.weight"]),
            ("hidden_bias", state["hidden.bias"]),
            ("out_weight", state["out.weight"][0]),
            ("skip_weight", state["skip.weight"][0]),
        ):
            weights.setdefault(name, []).append(array)
    return {name: np.stack(arrays).astype(np.float32) for name, arrays in weights.items()}


def shorten(
    values: np.ndarray, context: np.ndarray, units: Units, targets: StructureTargets, *, rng: np.random.Generator
) -> tuple[BarFeatures, StructureTargets] | None:
    """A song with up to a third of its phrases left out and, at times, two stretches of phrases exchanged.

    Annotated songs are few, and networks learn their forms by heart; this makes new forms of the same music. Cuts are
    where all annotators hear a start. None where too little is left.
    """
    cuts = np.flatnonzero(targets.start[1:] == 1.0) + 1
    phrases = np.split(np.arange(units.n_units), cuts)
    kept = list(range(len(phrases)))
    for _ in range(int(rng.integers(1, max(2, len(phrases) // 3 + 1)))):
        if len(kept) > _FEWEST_PHRASES:
            kept.pop(int(rng.integers(len(kept))))
    if len(kept) > _FEWEST_PHRASES + 1 and rng.random() < _EXCHANGED:
        a, b, c = sorted(rng.choice(np.arange(1, len(kept)), 3, replace=False).tolist())
        kept = kept[:a] + kept[b:c] + kept[a:b] + kept[c:]
    unit = np.concatenate([phrases[k] for k in kept])
    if len(kept) == len(phrases) or len(unit) < _FEWEST_UNITS:
        return None
    first, lengths = units.first_beats[unit], units.lengths[unit]
    beats = np.concatenate([np.arange(start, start + n) for start, n in zip(first, lengths, strict=True)])
    shortened = Units(np.repeat(np.arange(len(unit)), lengths))
    return bar_features(values[beats], context[beats], shortened), StructureTargets(
        targets.start[unit], targets.phase[unit], targets.same[np.ix_(unit, unit)], targets.known[unit]
    )


def structure_examples(
    path: Path, annotation: Annotation, ranker: dict[str, np.ndarray], *, n_shortened: int = N_SHORTENED
) -> dict[str, StructureExample]:
    """One song on the grid that the tracker finds ("estimated") and on the true one ("true"), and both shortened.

    The estimated grid is left out where fewer than 80 % of its downbeats are true ones: its bars mean nothing. Which
    phrases are left out follows from the name of the work.
    """
    frames, config = decode_song(path).frames, TrackerConfig()
    onsets = band_onsets(frames.mel, compression=config.compression)
    activation = beat_activation(onsets, config=config)
    instants, readings = find_readings(frames, onsets, activation, config=config)
    best = readings[int(reading_probabilities(reading_features(instants, readings), ranker).argmax())]
    true = annotation.grid
    inside = true.times < frames.duration_s
    grids = {
        "estimated": BeatGrid(instants.times[best.chosen], best.positions, frames.duration_s),
        "true": BeatGrid(true.times[inside], true.positions[inside], frames.duration_s),
    }
    estimated = grids["estimated"].downbeats
    if len(estimated) == 0 or len(true.downbeats) == 0:
        right = 0.0
    else:
        right = (np.abs(estimated[:, None] - true.downbeats[None]).min(axis=1) < _BAR_TOLERANCE_S).mean()
    if right < 0.8:
        del grids["estimated"]
    work = annotation.track_id
    rng = np.random.default_rng(list(work.encode()))
    examples = {}
    for kind, grid in grids.items():
        units = Units.bars(grid)
        values, context = frames_to_features(frames, grid, onsets=onsets).values, beat_context(frames, grid, onsets)
        targets = structure_targets(annotation, grid.times[units.first_beats])
        examples[kind] = StructureExample(work, bar_features(values, context, units), targets)
        for i in range(n_shortened):
            shortened = shorten(values, context, units, targets, rng=rng)
            if shortened is not None:
                examples[f"{kind}, shortened {i + 1}"] = StructureExample(work, *shortened)
    return examples


def train_structure_model(
    examples: Sequence[StructureExample],
    *,
    n_folds: int = N_FOLDS,
    n_nets: int = N_NETS,
    progress: Progress | None = None,
) -> StructureModel:
    """`n_nets` networks per fold of works, each trained on the other folds."""
    nets = []
    for k in range(n_folds * n_nets):
        if progress is not None:
            progress("train structure networks", k, n_folds * n_nets)
        nets.append(train_structure_net([e for e in examples if fold_of(e.work, n_folds) != k % n_folds], seed=k))
    if progress is not None:
        progress("train structure networks", n_folds * n_nets, n_folds * n_nets)
    return StructureModel(tuple(nets), frozenset(example.work for example in examples), n_folds)


def calibrate(model: StructureModel, examples: Sequence[StructureExample]) -> StructureModel:
    """The model with temperatures fitted to what it says of songs it has not seen."""
    logits = [net_logits(model.nets_for(example.work), example.features) for example in examples]
    return replace(model, temperatures=fit_temperatures(logits, [example.targets for example in examples]))


@dataclass(frozen=True)
class ListeningReport:
    """How well the models read songs they have not seen.

    Attributes:
        n_songs: Recordings.
        grids_right: Share of recordings whose chosen reading has a quality of at least 0.9.
        grids_right_first: The same by the tracker's evidence alone.
        start_f: Mean F-measure of phrase starts at the exact bar, against the nearer annotator.
        phase_right: Mean share of bars whose likeliest place mod 4 is that of an annotator.
        start_brier: Mean squared error of the probabilities of phrase starts (Brier 1950).
        same_auc: Mean area under the curve of same-material probabilities over pairs of bars.
    """

    n_songs: int
    grids_right: float
    grids_right_first: float
    start_f: float
    phase_right: float
    start_brier: float
    same_auc: float


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a score with label True is above one with label False, ties half (Mann and Whitney 1947)."""
    from scipy.stats import mannwhitneyu

    above, below = scores[labels], scores[~labels]
    return float(mannwhitneyu(above, below).statistic / (len(above) * len(below)))


def judge_structure(example: StructureExample, model: StructureModel) -> tuple[float, float, float, float]:
    """Start F-measure, share of places right, Brier score of starts and area under the curve of one song."""
    found, targets = model.probabilities(example.features, example.work), example.targets
    picked, known = found.start >= 0.5, targets.known
    scores = []
    for reference in (targets.start >= 0.75, targets.start >= 1.0):
        hits = 2.0 * (picked & reference).sum() / max(picked.sum() + reference.sum(), 1)
        scores.append(float(hits))
    place_right = np.take_along_axis(targets.phase, found.phase.argmax(axis=1)[:, None], axis=1)[:, 0] > 0
    both = known[:, None] & known[None] & ~np.eye(len(known), dtype=bool)
    same = targets.same[both] > 0.5
    auc = area_under_curve(found.same[both], same) if 0 < same.mean() < 1 else np.nan
    # A start by one of two annotators is half a start.
    agreed = np.where((targets.start > 0) & (targets.start < 1), 0.5, targets.start)
    brier = float(((found.start - agreed)[known] ** 2).mean())
    return max(scores), float(place_right[known].mean()), brier, auc


def train_listening(
    folders: Sequence[Path], *, output: Path = FOLDER, progress: Progress | None = None
) -> ListeningReport:
    """Train both models on the annotated songs in `folders`, write their weights to `output`, and report.

    Args:
        folders: Where the songs are; recordings of one work (annotation id) share a fold.
        output: Folder for `grid_ranker.npz`, `structure.npz` and their digests.
        progress: Called as progress(stage, done, total).

    Raises:
        ParameterError: If there are fewer than two works per fold.
    """
    songs = annotated_songs(folders)
    works = {annotation.track_id for _, annotation in songs}
    if len(works) < 2 * N_FOLDS:
        raise ParameterError(f"training needs at least {2 * N_FOLDS} annotated works; got {len(works)}")

    def each(stage: str, task: Callable[[Path, Annotation], object]) -> list[object]:
        results = []
        for i, (path, annotation) in enumerate(songs):
            if progress is not None:
                progress(stage, i, len(songs))
            results.append(task(path, annotation))
        if progress is not None:
            progress(stage, len(songs), len(songs))
        return results

    ranked: list[RankedSong] = each("read songs", rank_song)  # type: ignore[assignment]
    chosen, first = [], []
    for fold in range(N_FOLDS):
        rankers = train_ranker([song for song in ranked if fold_of(song.work, N_FOLDS) != fold])
        for song in ranked:
            if fold_of(song.work, N_FOLDS) == fold:
                chosen.append(song.quality[reading_probabilities(song.features, rankers).argmax()])
                # The last but one column is the tracker's own evidence.
                first.append(song.quality[song.features[:, -2].argmax()])
    ranker = train_ranker(ranked)
    examples: list[dict[str, StructureExample]] = each(  # type: ignore[assignment]
        "compare bars", lambda path, annotation: structure_examples(path, annotation, ranker)
    )
    heard = [kinds["estimated"] for kinds in examples if "estimated" in kinds]
    model = train_structure_model([e for kinds in examples for e in kinds.values()], progress=progress)
    model = calibrate(model, heard)
    judged = np.array([judge_structure(example, model) for example in heard])
    save_weights(RANKER, ranker, folder=output)
    save_weights(STRUCTURE_MODEL, model.arrays(), folder=output)
    return ListeningReport(
        n_songs=len(songs),
        grids_right=float(np.mean(np.array(chosen) >= 0.9)),
        grids_right_first=float(np.mean(np.array(first) >= 0.9)),
        start_f=float(judged[:, 0].mean()),
        phase_right=float(judged[:, 1].mean()),
        start_brier=float(judged[:, 2].mean()),
        same_auc=float(np.nanmean(judged[:, 3])),
    )
