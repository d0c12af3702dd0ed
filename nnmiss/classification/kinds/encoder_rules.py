"""Which encoder the planner takes where the data set gives no hint: by shape and number of samples."""
from __future__ import annotations

SMALL_IMAGE = 32  # pixels per side up to which LeNet's two convolutions see the whole object
FEW_SAMPLES = 2000  # below this a residual network is mostly larger than the data


def image_encoder(shape: tuple[int | None, ...], num_samples: int) -> dict:
    """(C, H, W): LeNet for few small images of one channel, else ResNet-10, or ResNet-18 for many large images."""
    channels, *size = shape
    if max(size) <= SMALL_IMAGE:
        if channels == 1 and num_samples < FEW_SAMPLES and min(size) >= 16:
            return {"name": "lenet"}
        return {"name": "resnet10", "stem": "3x3"}
    return {"name": "resnet18" if num_samples >= 10 * FEW_SAMPLES else "resnet10", "stem": "7x7"}


def sound_encoder(shape: tuple[int | None, ...], num_samples: int) -> dict:
    """(1, 20, 20): SMIL's sound network, which is made for that size; else ResNet-10."""
    if tuple(shape) == (1, 20, 20):
        return {"name": "sound_net"}
    return {"name": "resnet10", "stem": "3x3" if max(shape[1:]) <= 64 else "7x7"}


def series_encoder(shape: tuple[int | None, ...], num_samples: int) -> dict:
    """(T, F): two stacked LSTM layers, as MedFuse; narrower for few samples."""
    return {"name": "lstm", "hidden": 256 if num_samples >= FEW_SAMPLES else 128, "layers": 2, "dropout": 0.3}


def mlp_encoder(shape: tuple[int | None, ...], num_samples: int) -> dict:
    """(F,): two layers; narrower for few samples."""
    return {"name": "mlp", "hidden": [256, 128] if num_samples >= FEW_SAMPLES else [64, 64], "dropout": 0.3}


def volume_encoder(shape: tuple[int | None, ...], num_samples: int) -> dict:
    """(C, D, H, W): the 3D convolutional network."""
    return {"name": "cnn3d"}
