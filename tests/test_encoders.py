"""Encoders: published shapes and sizes, lone samples, series of unlike length, names and options."""
from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnmiss.errors import NnmissError
from nnmiss.networks.encoders import ENCODERS, build_encoder, build_encoders, encoder_spec, parse_encoders
from nnmiss.networks.encoders.base import fully_connected

SHAPES = {"lenet": (1, 28, 28), "sound_net": (1, 20, 20), "cnn2d": (3, 9, 14), "cnn3d": (1, 12, 11, 10), "mlp": (7,),
          "lstm": (None, 5)} | {f"resnet{n}": (1, 20, 24) for n in (3, 6, 10, 18, 34)}
FEATURES = {"lenet": 160, "sound_net": 320, "cnn2d": 128, "cnn3d": 128, "mlp": 64, "lstm": 256, "resnet3": 64,
            "resnet6": 128, "resnet10": 512, "resnet18": 512, "resnet34": 512}


def size_of(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def values_of(name: str, n: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    shape = [6 if s is None else s for s in SHAPES[name]]
    return torch.randn(n, *shape), torch.arange(n) % 6 + 1 if name == "lstm" else None


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("n", [1, 3])
def test_every_encoder_learns_from_any_number_of_samples(name, n):
    torch.manual_seed(0)
    encoder = build_encoder({"name": name}, SHAPES[name])
    assert encoder.features == FEATURES[name]
    values, lengths = values_of(name, n)
    lengths = lengths if lengths is None else lengths + 2  # an LSTM's recurrent weights need two steps
    out = encoder(values, lengths)
    assert out.shape == (n, FEATURES[name])
    out.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters() if p.ndim > 1)


@pytest.mark.parametrize("name", ENCODERS)
def test_samples_do_not_see_each_other_at_inference(name):
    torch.manual_seed(0)
    encoder = build_encoder({"name": name}, SHAPES[name]).eval()
    values, lengths = values_of(name, 4)
    together = encoder(values, lengths)
    for i in range(4):
        alone = encoder(values[i : i + 1], None if lengths is None else lengths[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sound_net", "resnet3", "resnet18"])
def test_a_lone_training_sample_is_normalised_by_running_statistics(name):
    torch.manual_seed(0)
    encoder = build_encoder({"name": name, **({"dropout": 0.0} if name == "sound_net" else {})}, SHAPES[name])
    encoder(values_of(name, 16)[0] * 3 + 1)  # running statistics that are not 0 and 1
    before = {k: v.clone() for k, v in encoder.named_buffers()}
    lone = values_of(name, 1)[0]
    trained = encoder(lone)
    assert all(torch.equal(before[k], v) for k, v in encoder.named_buffers())
    torch.testing.assert_close(trained, encoder.eval()(lone))


def test_batch_normalisation_is_torchs_for_more_than_one_sample():
    torch.manual_seed(0)
    encoder = build_encoder({"name": "resnet3"}, (1, 6, 6))
    maps = torch.randn(3, 64, 6, 6)
    reference = nn.BatchNorm2d(64)
    torch.testing.assert_close(encoder.bn1(maps), reference(maps))
    torch.testing.assert_close(encoder.bn1.running_var, reference.running_var)


def test_lenet_is_smils_layer_by_layer():
    torch.manual_seed(0)
    encoder = build_encoder({"name": "lenet"}, (1, 28, 28)).eval()
    first, second = (layer for layer in encoder.layers if isinstance(layer, nn.Conv2d))
    x = torch.randn(2, 1, 28, 28)
    maps = F.relu(F.max_pool2d(first(x), 2))
    maps = F.relu(F.max_pool2d(second(maps), 2))
    torch.testing.assert_close(encoder(x), maps.flatten(1))
    assert [type(layer).__name__ for layer in encoder.layers][3:5] == ["Conv2d", "Dropout"]  # before the pooling


@pytest.mark.parametrize("name, shape, size", [
    ("lenet", (1, 28, 28), 1_390), ("sound_net", (1, 20, 20), 10_412), ("resnet3", (1, 28, 28), 74_688),
    ("resnet18", (3, 224, 224), 11_176_512), ("resnet34", (3, 224, 224), 21_284_672)])  # torchvision's less the last layer
def test_sizes(name, shape, size):
    assert size_of(build_encoder({"name": name}, shape)) == size


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_resnets_take_torchvisions_weights(name):
    try:
        from torchvision import models
    except Exception as error:  # built for another torch it fails in many ways
        pytest.skip(f"torchvision cannot be used: {error}")
    torch.manual_seed(0)
    theirs = getattr(models, name)()
    weights = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    ours = build_encoder({"name": name}, (3, 96, 96))
    ours.load_state_dict(weights)
    theirs.fc = nn.Identity()
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec, shape, strides", [
    ({}, (3, 224, 224), (2, True)), ({}, (1, 28, 28), (1, False)), ({"stem": "7x7"}, (1, 28, 28), (2, True)),
    ({"stem": "3x3", "stem_stride": 2}, (3, 224, 224), (2, False))])
def test_the_stem_follows_the_size_of_the_images(spec, shape, strides):
    encoder = build_encoder({"name": "resnet10", **spec}, shape)
    assert (encoder.conv1.stride[0], encoder.pooled) == strides
    assert encoder.conv1.kernel_size[0] == (7 if encoder.pooled else 3)


# ---- series -----------------------------------------------------------------------------------------------------------

def test_what_stands_behind_the_end_of_a_series_is_not_read():
    torch.manual_seed(0)
    encoder = build_encoder({"name": "lstm", "dropout": 0.0}, (None, 5))
    values, lengths = torch.randn(3, 7, 5), torch.tensor([2, 7, 1])
    spoilt = values.clone()
    for i, length in enumerate(lengths):
        spoilt[i, length:] = torch.nan
    assert torch.equal(encoder(values, lengths), encoder(spoilt, lengths))


def test_an_lstm_is_a_stack_of_single_layers_read_at_each_end():
    torch.manual_seed(0)
    encoder = build_encoder({"name": "lstm", "layers": 3, "hidden": 6}, (None, 5)).eval()
    values, lengths = torch.randn(3, 7, 5), torch.tensor([4, 7, 1])
    for i, length in enumerate(lengths):
        x = values[i : i + 1, :length]
        for layer in range(3):
            single = nn.LSTM(x.shape[2], 6, batch_first=True)
            single.load_state_dict({f"{k}_l0": getattr(encoder.lstm, f"{k}_l{layer}")
                                    for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")})
            x, _ = single(x)
        torch.testing.assert_close(encoder(values, lengths)[i], x[0, -1])


def test_an_lstm_starts_orthogonal_in_its_state():
    weight = build_encoder({"name": "lstm", "hidden": 8}, (None, 5)).lstm.weight_hh_l1  # (4 * 8, 8)
    torch.testing.assert_close(weight.T @ weight, torch.eye(8), rtol=0, atol=1e-5)


# ---- names and options ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("spec, shape, words", [
    ({"name": "resnet11"}, (1, 28, 28), "resnet10"), ({"name": "mlp", "width": 3}, (7,), "hidden"),
    ({"name": "lenet"}, (7,), "images"), ({"name": "mlp"}, (None, 5), "fixed shape"),
    ({"name": "lenet"}, (1, 12, 28), "16"), ({"name": "sound_net"}, (1, 4, 4), "5"),
    ({"name": "lstm"}, (None, 0), "no values"), ({"name": "mlp", "hidden": []}, (7,), "[64]"),
    ({"name": "resnet3", "stem": "5x5"}, (1, 28, 28), "3x3"), ({}, (7,), "unknown")])
def test_what_cannot_be_built_is_refused_with_what_can(spec, shape, words):
    with pytest.raises(NnmissError) as error:
        build_encoder(spec, shape)
    assert words in str(error.value)


def test_short_names():
    assert encoder_spec("LSTM4") == {"name": "lstm", "layers": 4}
    assert encoder_spec("mlp256x64") == {"name": "mlp", "hidden": [256, 64]}
    assert encoder_spec("resnet18") == {"name": "resnet18"}
    assert encoder_spec("ResNet10-7x7") == {"name": "resnet10", "stem": "7x7"}
    assert encoder_spec("resnet3-3x3-s2") == {"name": "resnet3", "stem": "3x3", "stem_stride": 2}


def test_encoders_named_on_the_command_line():
    assert parse_encoders("", ["image", "sound"]) == {}
    assert parse_encoders("Image:resnet10+sound:lstm3", ["image", "sound"]) == {
        "image": {"name": "resnet10"}, "sound": {"name": "lstm", "layers": 3}}


@pytest.mark.parametrize("text, words", [("lenet", "MODALITY:ENCODER"), ("picture:lenet", "image"),
                                         ("image:lenat", "lenet"), ("image:lenet+image:resnet3", "twice")])
def test_faulty_names_on_the_command_line(text, words):
    with pytest.raises(NnmissError) as error:
        parse_encoders(text, ["image", "sound"])
    assert words in str(error.value)


def test_an_override_keeps_the_options_of_an_encoder_of_the_same_name():
    plan = {"modalities": {"ehr": {"encoder": {"name": "lstm", "hidden": 16, "layers": 2}}}}
    assert build_encoders(plan, {"ehr": (None, 5)}, "ehr:lstm3")[0].features == 16
    assert build_encoders(plan, {"ehr": (4, 5)}, "ehr:mlp32")[0].features == 32
    with pytest.raises(NnmissError, match="modality ehr"):
        build_encoders(plan, {"ehr": (None, 5)}, "ehr:lenet")


def test_one_dropout_rate_per_layer_or_one_for_all():
    rates = [layer.p for layer in fully_connected([4, 3, 2], (0.1, 0.2)) if isinstance(layer, nn.Dropout)]
    assert rates == [0.1, 0.2]
    with pytest.raises(NnmissError, match="one each"):
        fully_connected([4, 3, 2], (0.1,))
