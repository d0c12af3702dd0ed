"""How hard a phantom is: Dice of small U-Nets that see one modality or all, of thresholds, and of logistic regression.

python benchmarks/phantom_dice.py --preset brats_like [--size 32] [--training 24] [--test 16] [--iterations 300] [--seeds 1]
python benchmarks/phantom_dice.py --difficulty 0.5 --methods threshold logistic     (seconds, no network)

Dice of whole tumour / tumour core / enhancing tumour, mean over test cases with true labels. "dedicated" is a U-Net of its
own for every subset of modalities, "shared" one U-Net that is shown random subsets (absent channels zero). Both train on
whole volumes with mirroring, by SGD with momentum 0.95 whose rate falls to 0. "threshold" is the best single interval of
brightness per region and modality, found on the training cases after z-normalisation in the brain. "logistic" sees the
brightness of one voxel in all modalities of the subset, its squares and products; for each region its best cut on the
training cases is taken.
"""
from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from machine import processor
from plain_unet import configuration
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import PolynomialFeatures
from torch import Tensor, nn

from nnmiss.availability import all_subsets, match_modality
from nnmiss.dataset_conversion.phantom import FIRST_TEST_NUMBER, PRESETS, PhantomSettings, make_case, training_labels
from nnmiss.dataset_conversion.phantom_settings import INGREDIENTS
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.memory_format import fastest_layout
from nnmiss.seeding import derive_seed, seed_libraries

SAMPLED_VOXELS = 2000  # of each training case, for thresholds and logistic regression
LEVELS = 40  # quantiles among which a threshold is sought


def load(settings: PhantomSettings, first: int, count: int, training: bool) -> tuple[Tensor, Tensor]:
    """Images (B, M, X, Y, Z), mean 0 and deviation 1 in the brain, 0 outside; regions (B, 3, X, Y, Z) in 0, 1."""
    images, regions = [], []
    for number in range(first, first + count):
        image, labels = make_case(settings, number)
        labels = training_labels(settings, number) if training else labels
        for channel in image:
            inside = channel[channel > 0]
            channel[channel > 0] = (inside - inside.mean()) / inside.std()
        images.append(torch.from_numpy(image))
        regions.append(torch.from_numpy(np.stack([labels >= 1, labels >= 2, labels == 3]).astype(np.float32)))
    return torch.stack(images), torch.stack(regions)


def dice(predicted: Tensor, truth: Tensor) -> np.ndarray:
    """(3,) mean over cases of (B, 3, X, Y, Z) boolean against 0, 1."""
    both = (predicted * truth).sum((2, 3, 4))
    return (2 * both / (predicted.sum((2, 3, 4)) + truth.sum((2, 3, 4)))).mean(0).numpy()


def loss_of(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy and soft Dice over the batch, as nnU-Net's for regions."""
    p = torch.sigmoid(logits)
    overlap = (2 * (p * truth).sum((0, 2, 3, 4)) + 1) / ((p + truth).sum((0, 2, 3, 4)) + 1)
    return nn.functional.binary_cross_entropy_with_logits(logits, truth) + 1 - overlap.mean()


def train(images: Tensor, regions: Tensor, subsets: list[tuple[int, ...]], args, seed: int) -> nn.Module:
    """A U-Net on (B, M, X, Y, Z) images of which each sample is shown a random one of `subsets`."""
    seed_libraries("phantom dice", seed)
    rng = np.random.default_rng(derive_seed("phantom dice", seed, "order"))
    network = build_unet(configuration(args.features, stages=3, patch=images.shape[-1]), images.shape[1], 3, False)
    network = fastest_layout(network, torch.device("cpu"))
    optimiser = torch.optim.SGD(network.parameters(), args.rate, momentum=0.95, nesterov=True)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, args.iterations, 0.9)
    for _ in range(args.iterations):
        chosen = rng.choice(len(images), 2, replace=False)
        x, y = images[chosen].clone(), regions[chosen]
        for sample in x:
            shown = subsets[rng.integers(len(subsets))]
            sample[[m for m in range(x.shape[1]) if m not in shown]] = 0
        flips = [axis for axis in (2, 3, 4) if rng.integers(2)]
        loss = loss_of(network(x.flip(flips)), y.flip(flips))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def predict(network: nn.Module, images: Tensor, subset: tuple[int, ...]) -> Tensor:
    """(B, 3, X, Y, Z) boolean, from the channels of `subset`."""
    shown = torch.zeros_like(images)
    shown[:, subset] = images[:, subset]
    return torch.cat([network(x) for x in shown.split(2)]) > 0


def dedicated(data, subsets, args, seed) -> dict:
    """subset -> Dice of a network of its own."""
    images, regions, test_images, test_regions = data
    result = {}
    for subset in subsets:
        network = train(images[:, subset], regions, [tuple(range(len(subset)))], args, seed)
        result[subset] = dice(predict(network, test_images[:, subset], tuple(range(len(subset)))), test_regions)
    return result


def shared(data, subsets, args, seed) -> dict:
    """subset -> Dice of one network trained on all subsets, uniformly."""
    images, regions, test_images, test_regions = data
    every = [tuple(m for m, on in enumerate(row) if on) for row in all_subsets(images.shape[1])]
    network = train(images, regions, every, args, seed)
    return {subset: dice(predict(network, test_images, subset), test_regions) for subset in subsets}


def sampled(images: Tensor, regions: Tensor, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of the brains: brightness (N, M) and regions (N, 3) boolean."""
    rng = np.random.default_rng(derive_seed("phantom dice", seed, "voxels"))
    x, y = [], []
    for image, region in zip(images.numpy(), regions.numpy()):
        inside = np.flatnonzero(image.any(0))
        inside = rng.choice(inside, min(SAMPLED_VOXELS, len(inside)), replace=False)
        x.append(image.reshape(len(image), -1)[:, inside].T)
        y.append(region.reshape(3, -1)[:, inside].T > 0)
    return np.concatenate(x), np.concatenate(y)


def best_interval(values: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Lower and upper brightness between which Dice with `truth` (N,) is largest."""
    cuts = np.concatenate([[-np.inf], np.quantile(values, np.linspace(0, 1, LEVELS + 1)[1:-1]), [np.inf]])
    below = np.array([[(values < cut).sum(), truth[values < cut].sum()] for cut in cuts])
    low, high = np.triu_indices(len(cuts), 1)
    size, hit = (below[high] - below[low]).T
    best = np.argmax(2 * hit / (size + truth.sum()))
    return cuts[low[best]], cuts[high[best]]


def threshold(data, subsets, args, seed) -> dict:
    """subset -> Dice of the best interval of its best modality, for each region."""
    images, regions, test_images, test_regions = data
    x, y = sampled(images, regions, seed)
    brain = test_images.any(1)
    single = {}
    for m in range(images.shape[1]):
        cuts = [best_interval(x[:, m], y[:, region]) for region in range(3)]
        inside = [(test_images[:, m] >= low) & (test_images[:, m] < high) & brain for low, high in cuts]
        single[m] = dice(torch.stack(inside, 1), test_regions)
    return {subset: np.max([single[m] for m in subset], axis=0) for subset in subsets}


def logistic(data, subsets, args, seed) -> dict:
    """subset -> Dice of a quadratic logistic regression on the voxel's own brightness."""
    images, regions, test_images, test_regions = data
    x, y = sampled(images, regions, seed)
    brain = test_images.any(1)
    result = {}
    for subset in subsets:
        terms = PolynomialFeatures(2, include_bias=False)
        features = terms.fit_transform(x[:, subset])
        test = terms.transform(test_images.movedim(1, -1)[brain][:, subset].numpy())
        predicted = torch.zeros_like(test_regions, dtype=torch.bool)
        for region in range(3):
            model = LogisticRegression(max_iter=200).fit(features, y[:, region])
            low, _ = best_interval(model.decision_function(features), y[:, region])
            predicted[:, region][brain] = torch.from_numpy(model.decision_function(test) >= low)
        result[subset] = dice(predicted, test_regions)
    return result


METHODS = {"dedicated": dedicated, "shared": shared, "threshold": threshold, "logistic": logistic}


def parse() -> tuple[argparse.Namespace, PhantomSettings]:
    """The arguments and the phantom's settings; a flag given beside a preset wins."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--preset", choices=sorted(PRESETS))
    add("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the phantom, as label_noise=0")
    add("--difficulty", type=float, default=0.5)
    add("--modalities", type=int, default=4)
    add("--size", type=int, default=32)
    add("--training", type=int, default=24)
    add("--test", type=int, default=16)
    add("--iterations", type=int, default=300)
    add("--features", type=int, default=8)
    add("--rate", type=float, default=0.05)
    add("--seeds", type=int, default=1, help="seeds of networks; the cases stay the same")
    add("--subsets", nargs="+", metavar="SUBSET", help="as flair+t1ce; default: each modality alone and all")
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    args = parser.parse_args()
    changes = {"difficulty": args.difficulty, "modalities": args.modalities, "size": args.size}
    changes |= PRESETS.get(args.preset, {})
    for name, value in (item.split("=") for item in args.set):
        if name not in (*INGREDIENTS, "difficulty", "seed"):
            parser.error(f"--set takes {', '.join(INGREDIENTS)}, difficulty or seed, got {name}")
        changes[name] = value if name == "contrasts" else value == "True" if name == "invisible" else \
            int(value) if name in ("scanners", "lookalikes", "seed") else float(value)
    return args, PhantomSettings(**changes)


def main() -> None:
    """Prints one row per method and seed."""
    args, settings = parse()
    torch.set_num_threads(1)
    data = (*load(settings, 0, args.training, True), *load(settings, FIRST_TEST_NUMBER, args.test, False))
    names = settings.names
    asked = args.subsets or [*names, "+".join(names)]
    subsets = [tuple(match_modality(name, list(names)) for name in subset.split("+")) for subset in asked]
    print(f"{processor()}, torch {torch.__version__}; {settings}; {args.training} training cases, {args.test} test cases, "
          f"{args.iterations} iterations", flush=True)
    print("method | seed | " + " | ".join(asked) + " | s")
    for name in args.methods:
        for seed in range(args.seeds if name in ("dedicated", "shared") else 1):
            start = time.perf_counter()
            result = METHODS[name](data, subsets, args, seed)
            cells = ["/".join(f"{d:.2f}".lstrip("0") for d in result[subset]) for subset in subsets]
            print(f"{name} | {seed} | " + " | ".join(cells) + f" | {time.perf_counter() - start:.0f}", flush=True)


if __name__ == "__main__":
    main()
