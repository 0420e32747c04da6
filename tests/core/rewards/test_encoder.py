"""Songs longer than a chunk are encoded in chunks."""

import torch

from editorbot_core.rewards.encoder import SongEncoder


def test_long_songs_are_encoded_in_chunks_that_lose_nothing():
    torch.manual_seed(0)
    settings = {"hidden": 16, "n_layers": 2, "n_heads": 2, "n_convs": 0, "dropout": 0.0}
    whole = SongEncoder(6, **settings, chunk_beats=200, overlap_beats=20)
    chunked = SongEncoder(6, **settings, chunk_beats=60, overlap_beats=20)
    chunked.load_state_dict(whole.state_dict())
    features = torch.randn(1, 150, 6, requires_grad=True)
    mask = torch.ones(1, 150, dtype=torch.bool)
    states = chunked(features, mask)
    # Every beat has a state that looks at its own features and at no beat further than a chunk away.
    for beat in (0, 49, 50, 89, 90, 149):
        gradient = torch.autograd.grad(states[0, beat].square().sum(), features, retain_graph=True)[0][0].abs().sum(1)
        seen = gradient.nonzero()[:, 0]
        assert gradient[beat] > 0
        assert int(seen.max() - seen.min()) == min(59, 149 - int(seen.min()))
        # At least half the overlap on both sides, except at the ends of the song.
        assert int(seen.min()) <= max(0, beat - 10) and int(seen.max()) >= min(149, beat + 9)
    assert torch.equal(chunked(features[:, :60], mask[:, :60]), whole(features[:, :60], mask[:, :60]))


def test_chunks_match_the_whole_where_attention_is_not_used():
    torch.manual_seed(0)
    settings = {"hidden": 16, "n_layers": 2, "n_heads": 2, "n_convs": 1, "dropout": 0.0}
    whole = SongEncoder(6, **settings, chunk_beats=200, overlap_beats=20).eval()
    for layer in whole.layers:
        torch.nn.init.zeros_(layer.attention_out.weight)
        torch.nn.init.zeros_(layer.attention_out.bias)
    chunked = SongEncoder(6, **settings, chunk_beats=60, overlap_beats=20).eval()
    chunked.load_state_dict(whole.state_dict())
    # Songs of one batch that end in different chunks.
    mask = torch.arange(150) < torch.tensor([[150], [97]])
    features = torch.randn(2, 150, 6)
    torch.testing.assert_close(chunked(features, mask)[mask], whole(features, mask)[mask], atol=1e-5, rtol=1e-5)
