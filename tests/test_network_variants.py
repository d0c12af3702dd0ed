"""Variants of the shared-encoder network: what each modality has for itself, fusions that look at voxels, no imputation."""
from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from tiny_networks import shared, tiny_configuration
from tiny_trainers import make_batch, make_trainer
from torch import nn

from nnmiss.availability import all_subsets
from nnmiss.errors import NnmissError
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.base import item_index
from nnmiss.networks.memory_format import fastest_layout
from nnmiss.networks.modality_norm import ModalityNorm, ShownModality
from nnmiss.networks.shared_encoder_unet import SharedEncoderUNet, build_shared_encoder
from nnmiss.networks.voxelwise_fusions import MeanVarianceFusion
from nnmiss.planners.cost import mean_cost
from nnmiss.planners.planned_step import PlannedSteps
from nnmiss.seeding import torch_generator

ENCODERS = [{"modality_specific": "norm"}, {"modality_specific": "embedding"}, {"separate_stages": 2},
            {"modality_specific": "norm", "separate_stages": 1}, {"modality_specific": "norm", "residual": True},
            {"modality_specific": "embedding", "separate_stages": 1, "residual": True}]
FUSED = [{"fusion": "gated"}, {"fusion": "mean_variance"}, {"fusion": "gated", "imputation": "none"},
         {"fusion": "mean_variance", "imputation": "bottleneck"}, {"fusion": "concat", "imputation": "none"},
         {"fusion": "mean", "imputation": "none"}, {"fusion": "linear", "imputation": "none"}]
TOGETHER = [{"fusion": "gated", "modality_specific": "norm", "separate_stages": 1, "imputation": "none"}]
VARIANTS = ENCODERS + FUSED + TOGETHER
PRESENT = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, True, True]])
OUTER = torch.tensor([0.1, 0.4, 0.3, 0.2])


def name_of(options: dict) -> str:
    return "-".join(f"{key}={value}" for key, value in options.items())


every_variant = pytest.mark.parametrize("options", VARIANTS, ids=name_of)
every_encoder = pytest.mark.parametrize("options", ENCODERS + TOGETHER, ids=name_of)


def build(**options) -> SharedEncoderUNet:
    """Weights away from their start, where all modalities are alike."""
    torch.manual_seed(0)
    network, generator = shared(**options), torch_generator("variants")
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def images(dim=3):
    return torch.randn(3, 4, *[16] * dim, generator=torch_generator("images", dim))


def learn(network, x, present, **more) -> dict[str, torch.Tensor | None]:
    """Gradients by name of a loss that sees every output."""
    network.zero_grad()
    logits, features = network(x, present, return_features=True, **more)
    (sum(out.square().mean() for out in logits) + features[-1].square().mean()).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


# ---- contracts of every variant -------------------------------------------------------------------------------------

@every_variant
@pytest.mark.parametrize("dim", [3, 2])
def test_a_sample_depends_on_its_present_modalities_alone(options, dim):
    network, x = build(dim=dim, **options), images(dim)
    filled = torch.where(PRESENT.view(3, 4, *[1] * dim), x, float("nan"))
    together = network(filled, PRESENT)
    assert torch.equal(together, network(x, PRESENT))
    alone = torch.cat([network(x[i : i + 1], PRESENT[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.allclose(together[[2, 0]], network(x[[2, 0]], PRESENT[[2, 0]]), atol=1e-4)


@every_variant
def test_subsets_at_once_equal_plain_passes_on_the_fast_paths_too(options):
    network, x, presents = build(**options).eval(), images()[:2], torch.tensor(all_subsets(4))
    with torch.inference_mode():
        plain = torch.stack([network(x, present.expand(2, -1)) for present in presents], 1)
        assert (network.forward_subsets(x, presents, 4) - plain).abs().max() < 1e-4
        fastest_layout(network, torch.device("cpu"))
        for batch in (1, 16):
            assert (network.forward_subsets(x, presents, batch) - plain).abs().max() < 1e-4
        assert (network(x[:1], presents[:1]) - plain[:1, 0]).abs().max() < 1e-4


@every_variant
def test_gradients_reach_every_part_and_absent_modalities_parts_get_zeros(options):
    network, x = build(deep_supervision=True, **options), images()
    # a bias before instance normalisation has no effect; the second copy of a parameter has a name only
    assert [name for name, g in learn(network, x, torch.ones(3, 4, dtype=torch.bool)).items()
            if (g is None or not g.any()) and not name.endswith("bias")] == []
    found = learn(network, x, torch.tensor([[True, False, True, False]] * 3))
    assert all(g is not None and torch.isfinite(g).all() for g in found.values())
    for name, g in found.items():
        if ".copies." in name:
            assert name.split(".copies.")[1][0] in "02" or not g.any(), name
    for module in network.modules():
        if isinstance(module, ModalityNorm):
            of_modalities = module.bias.grad if module.embedding is None else module.embedding.grad
            assert of_modalities.abs().sum(1).bool().tolist() == [True, False, True, False]


@every_variant
def test_checkpointing_changes_no_gradient(options):
    plain, saving = (build(deep_supervision=True, checkpointing=c, **options) for c in (False, True))
    outer = [OUTER.clone().requires_grad_() for _ in range(2)]
    expected, found = (learn(n, images(), PRESENT, importance=w) for n, w in zip((plain, saving), outer))
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name
    assert torch.allclose(outer[0].grad, outer[1].grad, atol=1e-5)
    assert outer[0].grad.abs().max() > 1e-7


@every_variant
def test_weights_come_back_from_a_state_dict_and_a_copy(options):
    network, other = build(**options), shared(**options)
    other.load_state_dict(network.state_dict())
    expected = network(images(), PRESENT)
    assert torch.equal(other(images(), PRESENT), expected)
    assert torch.equal(deepcopy(network)(images(), PRESENT), expected)


@every_variant
def test_variants_train_and_predict_on_two_modalities(options):
    network, x, present = build(num_modalities=2, **options), images()[:, :2], torch.tensor([[True, False]] * 3)
    assert torch.isfinite(network(x, present)).all()


# ---- what of the encoder each modality has for itself ---------------------------------------------------------------

@every_encoder
def test_the_start_is_the_shared_encoder(options):
    default = {k: v for k, v in options.items() if k in ("residual", "fusion", "imputation")}
    torch.manual_seed(0)
    expected = shared(**default)(images(), PRESENT)
    torch.manual_seed(0)
    assert torch.equal(shared(**options)(images(), PRESENT), expected)


@every_encoder
def test_features_are_those_of_an_encoder_with_the_modalitys_parameters(options):
    network = build(**options)
    with torch.no_grad():
        x, modality = images()[PRESENT][:, None], PRESENT.nonzero()[:, 1]
        features = network.encode(x, modality)
        for m in range(4):
            plain = shared(residual=options.get("residual", False)).encoder
            plain.load_state_dict(of_modality(network.encoder, plain.state_dict(), m))
            for scale, expected in zip(features, plain(x[modality == m])):
                assert torch.allclose(scale[modality == m], expected, atol=1e-5)
        others = network.encode(x, (modality + 1) % 4)
    assert (others[0] - features[0]).abs().max() > 1e-2


def of_modality(encoder: nn.Module, names, m: int) -> dict[str, torch.Tensor]:
    """The weights that one modality goes through, by the names of nnU-Net's encoder."""
    own = {name.replace(f".copies.{m}", ""): value for name, value in encoder.state_dict().items()
           if ".copies." not in name or f".copies.{m}." in name}
    values = {}
    for name in names:
        shift = own.get(name.removesuffix("bias") + "embedding") if name.endswith("bias") else None
        specific = own[name][m] if own[name].ndim == 2 else own[name]  # a norm's (M, C)
        values[name] = specific if shift is None else specific + shift[m]
    return values


def test_only_what_is_asked_for_differs_between_modalities():
    def parameters(**options):
        return sum(p.numel() for p in shared(**options).encoder.parameters())

    plain, channels = parameters(), 6 + 8 + 10
    assert parameters(modality_specific="norm") == plain + 3 * 2 * channels
    assert parameters(modality_specific="embedding") == plain + 4 * channels
    first = 27 * 6 + 3 * 6
    assert parameters(separate_stages=1) == plain + 3 * first
    assert parameters(separate_stages=3) == 4 * plain
    assert parameters(separate_stages=1, modality_specific="norm") == plain + 3 * (first + 2 * (8 + 10))
    assert list(shared().state_dict()) == list(shared(modality_specific="norm").state_dict())


def test_modalities_differ_after_normalisation_where_an_embedding_lasts():
    """Added behind a stage, the next normalisation would take a constant away again."""
    network, x = shared(modality_specific="embedding"), images()[:1, :1]
    network.encoder.stages[0][0].convs[0].norm.embedding.data[1] = 1.0
    with torch.no_grad():
        first, second = (network.encode(x, torch.tensor([m])) for m in (0, 1))
    assert (first[1] - second[1])[..., 2:-2, 2:-2, 2:-2].abs().max() > 0.05


@pytest.mark.parametrize("shift_only", [False, True])
@pytest.mark.parametrize("shape", [(5, 6, 4, 4, 4), (5, 3, 8, 6), (1, 70, 3, 3, 3)])
def test_normalisation_in_place_equals_that_of_each_modality(shape, shift_only):
    kind = nn.InstanceNorm3d if len(shape) == 5 else nn.InstanceNorm2d
    shown = ShownModality()
    norm = ModalityNorm(kind(shape[1], affine=True), 3, shown, shift_only)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    modality = torch.tensor([2, 0, 1, 1, 2])[: shape[0]]
    x = torch.randn(shape)
    with shown.showing(modality):
        scale, shift = norm.affine()
        expected = torch.cat([nn.functional.instance_norm(x[i : i + 1].double(), weight=scale[i].double(),
                                                          bias=shift[i].double()) for i in range(len(x))])
        assert torch.allclose(norm(x), expected.float(), atol=1e-5)
        block = build_unet(tiny_configuration(len(shape) - 2), 1, 2, False).encoder.stages[0][0].convs[0]
        block.norm = norm
        fastest_layout(block, torch.device("cpu"))
        layout = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
        with torch.inference_mode():
            quick = x.clone().contiguous(memory_format=layout)
            assert norm(quick) is quick  # in place
        assert torch.allclose(quick, expected.float(), atol=1e-5)
    assert shown.index is None


def test_impossible_choices_are_refused():
    with pytest.raises(NnmissError, match="none, norm, embedding"):
        shared(modality_specific="normal")
    with pytest.raises(NnmissError, match=r"separate_stages=4.* 3 stages"):
        shared(separate_stages=4)
    with pytest.raises(NnmissError, match="leaves nothing"):
        shared(separate_stages=3, modality_specific="norm")
    configuration = tiny_configuration()
    configuration.configuration["architecture"]["arch_kwargs"]["norm_op_kwargs"] = {"affine": False}
    with pytest.raises(NnmissError, match="scale and shift"):
        SharedEncoderUNet(build_unet(configuration, 1, 2, False), 4, modality_specific="norm")


# ---- fusions and imputation -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("fusion", ["concat", "mean", "linear", "gated", "mean_variance"])
def test_without_imputation_importance_weighs_the_bottleneck_alone(fusion):
    network, index = build(fusion=fusion, imputation="none"), item_index(PRESENT)
    with torch.no_grad():
        features = network.encode(images()[PRESENT][:, None], PRESENT.nonzero()[:, 1])
        plain, weighed = network.fuse(features, index), network.fuse(features, index, OUTER)
    assert all(torch.equal(a, b) for a, b in zip(plain[:-1], weighed[:-1]))
    assert (plain[-1] - weighed[-1])[[0, 2]].abs().max() > 1e-3
    if fusion in ("mean", "gated", "mean_variance"):  # whose scale does not change with the weights
        assert torch.allclose(plain[-1][1], weighed[-1][1], atol=1e-5)


def test_equal_importance_changes_no_mean_without_imputation():
    for fusion in ("mean", "gated", "mean_variance"):
        network, index = build(fusion=fusion, imputation="none"), item_index(PRESENT)
        features = network.encode(images()[PRESENT][:, None], PRESENT.nonzero()[:, 1])
        for a, b in zip(network.fuse(features, index), network.fuse(features, index, torch.full((4,), 0.25))):
            assert torch.allclose(a, b, atol=1e-5), fusion


def test_a_variance_stays_finite_in_half_precision():
    fusion, features = MeanVarianceFusion(2, 4), torch.randn(2, 4, 4, 4, 4, generator=torch_generator("half"))
    fusion.weight.data[:, 4:] = 0.01
    features[0, 0, 0, 0, 0] = 700.0  # its square is beyond float16
    with torch.autocast("cpu", torch.float16):
        half = fusion(features.half(), [[0, 1]])
    assert torch.isfinite(half).all()
    expected = fusion(features, [[0, 1]])
    assert torch.allclose(half[..., 1:].float(), expected[..., 1:], atol=0.02)


def test_without_imputation_concat_shrinks_with_missing_modalities_and_linear_does_not():
    present = torch.tensor([[True, True, True, True], [True, False, False, False]])
    features = [torch.ones(5, c, 2, 2, 2) for c in (6, 8, 10)]
    for fusion, alone in (("concat", 0.25), ("linear", 1.0)):
        fused = shared(fusion=fusion, imputation="none").fuse(features, item_index(present))
        assert torch.allclose(fused[0][0], torch.tensor(1.0))
        assert torch.allclose(fused[0][1], torch.tensor(alone))


# ---- plans and trainers ---------------------------------------------------------------------------------------------

def test_the_plans_block_builds_the_variant():
    configuration = tiny_configuration()
    configuration.configuration["nnmiss"] = {"fusion": "gated", "imputation": "none", "modality_specific": "norm",
                                             "separate_stages": 1}
    built = build_shared_encoder(configuration, 4, 3, False).state_dict()
    assert {k: v.shape for k, v in built.items()} == {k: v.shape for k, v in build(**TOGETHER[0]).state_dict().items()}


def test_the_planner_counts_the_variant():
    configuration = tiny_configuration()
    configuration.configuration["patch_size"] = [64] * 3  # counted, not computed

    def counted(options):
        """Operations, bytes moved, and peaks of bytes without and with recomputing, of two samples."""
        steps = PlannedSteps(configuration, 4, 3, variant=options)
        return (*mean_cost(steps, 1.0), steps.packed_peak(1.0, 2), steps.packed_peak(1.0, 2, checkpointing=True))

    flops, moved, peak, saving = counted({})
    for options in ({"modality_specific": "norm"}, {"modality_specific": "embedding"}, {"imputation": "none"}):
        assert counted(options) == pytest.approx((flops, moved, peak, saving), rel=0.01), options
    for options in ({"fusion": "gated"}, {"fusion": "mean_variance"}, {"separate_stages": 2}):
        own = counted(options)
        assert own[0] == pytest.approx(flops, rel=0.02), options
        assert own[1] > 1.02 * moved and own[2] > 1.02 * peak, options
        assert own[3] < 1.3 * saving < own[2], options  # what these keep is recomputed
    with pytest.raises(NnmissError, match="nothing"):
        counted({"fusion": "nothing"})


@pytest.mark.parametrize("method", ["metakd", "lckd"])
@pytest.mark.parametrize("settings", [
    {"modality_specific": "norm", "fusion": "mean_variance", "imputation": "none"},
    {"modality_specific": "embedding", "separate_stages": 2, "fusion": "gated", "activation_checkpointing": True}])
def test_a_step_of_training(method, settings, tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, method, **settings)
    trainer.before_iteration = lambda: None
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    assert torch.isfinite(torch.tensor(trainer.train_step(make_batch(trainer))["loss"]))
    moved = [name for name, p in trainer.network.named_parameters() if not torch.equal(p, before[name])]
    assert len(moved) > 0.8 * len(before)
    if method == "metakd":
        trainer.meta_loader = iter([make_batch(trainer)])
        raw = trainer.importance.raw.detach().clone()
        trainer.update_importance(0)
        assert not torch.equal(raw, trainer.importance.raw)
