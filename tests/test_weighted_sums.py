"""Sums of mapped features: values and gradients of the definition, the features' memory layout, nothing left unwritten."""
from __future__ import annotations

import pytest
import torch

from nnmiss.networks.weighted_sums import weighted_sums
from nnmiss.seeding import torch_generator

ROWS = [[0, -1, 2], [-1, 3, 2], [4, -1, -1]]  # item 2 is shared, item 1 is in no sample


def slow(features, maps, bias):
    samples = []
    for b, row in enumerate(ROWS):
        parts = [torch.tensordot(maps[b, m], features[item], 1) if maps.ndim == 4 else maps[b, m] * features[item]
                 for m, item in enumerate(row) if item >= 0]
        samples.append(sum(parts) + (0 if bias is None else bias.view(-1, *[1] * (features.ndim - 2))))
    return torch.stack(samples)


@pytest.mark.parametrize("spatial", [(4, 6), (3, 4, 2)])
@pytest.mark.parametrize("matrices", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_sums_and_gradients_are_those_of_the_definition(spatial, matrices, last):
    generator = torch_generator("weighted sums")
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[len(spatial)] if last else torch.contiguous_format
    values = (torch.randn(5, 7, *spatial, generator=generator), torch.randn(3, 3, *[7] * 2 * matrices, generator=generator),
              torch.randn(7, generator=generator) if matrices else None)
    above = torch.randn(3, 7, *spatial, generator=generator)
    results = []
    for function in (lambda f, m, b: weighted_sums(f, m, ROWS, b), slow):
        features, maps, bias = (v if v is None else v.clone() for v in values)
        features = features.contiguous(memory_format=layout)
        inputs = [v.requires_grad_() for v in (features, maps, bias) if v is not None]
        out = function(features, maps, bias)
        results.append((out, *torch.autograd.grad(out, inputs, above)))
    assert results[0][0].is_contiguous(memory_format=layout)
    assert results[0][1].is_contiguous(memory_format=layout)
    for ours, expected in zip(*results):
        assert torch.allclose(ours, expected, atol=1e-5)
    assert not results[0][1][1].any()  # no sample shows it


def test_what_is_not_shown_is_never_read():
    features, maps = torch.randn(5, 7, 4, 4), torch.randn(3, 3, 7, 7)
    features[1] = maps[0, 1] = maps[2, 2] = float("nan")
    assert torch.isfinite(weighted_sums(features, maps, ROWS)).all()
    assert torch.isfinite(weighted_sums(features, maps[..., 0, 0], ROWS)).all()


def test_nothing_but_the_result_is_kept_or_made():
    """Beside features and maps nothing is kept for the backward pass: no copies of the features."""
    features = torch.randn(5, 7, 8, 8, requires_grad=True)
    maps = torch.randn(3, 3, 7, 7, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        weighted_sums(features, maps, ROWS)
    assert set(kept) == {features.data_ptr(), maps.data_ptr()}
