"""From normalised intensities back to those of the files: nnU-Net's normalisation schemes, undone."""
from __future__ import annotations

import numpy as np
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnmiss.errors import NnmissError
from nnmiss.preprocessing.read_case import CaseImages

SMALLEST = 1e-8  # nnU-Net divides by no less
SCHEMES = ("ZScoreNormalization", "CTNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization")


def check_invertible(configuration: ConfigurationManager, modalities: list[str]) -> None:
    """Raises NnmissError for a modality whose normalisation cannot be undone."""
    for modality, scheme in zip(modalities, configuration.normalization_schemes):
        if scheme not in SCHEMES:
            raise NnmissError(f"--save_reconstructions: {modality} was normalised by {scheme}, which nnmiss cannot undo "
                              f"(it can {', '.join(SCHEMES)}): leave the flag out")


def scale_and_offset(scheme: str, voxels: np.ndarray | None, fingerprint: dict) -> tuple[float, float]:
    """(s, o) such that s * normalised + o is the intensity in the file.

    Every scheme is such a map but for CTNormalization's clipping, which stays.

    Args:
        scheme: nnU-Net's name; one of SCHEMES.
        voxels: float32, the voxels of the modality's own file that nnU-Net took its statistics from; None if the case has
            no such file. Then the data set's statistics, which are of the foreground of the training cases, stand in.
        fingerprint: the modality's entry of foreground_intensity_properties_per_channel.
    """
    if scheme == "NoNormalization":
        return 1.0, 0.0
    if scheme == "RGBTo01Normalization":
        return 255.0, 0.0
    if scheme == "CTNormalization":
        return max(fingerprint["std"], SMALLEST), fingerprint["mean"]
    own = voxels is not None and voxels.size > 0
    if scheme == "RescaleTo01Normalization":
        low, high = (float(voxels.min()), float(voxels.max())) if own else (fingerprint["min"], fingerprint["max"])
        return max(high - low, SMALLEST), low
    mean, std = (float(voxels.mean()), float(voxels.std())) if own else (fingerprint["mean"], fingerprint["std"])
    return max(std, SMALLEST), mean


def restore_intensities(normalised: np.ndarray, channels: list[int], images: CaseImages, plans: PlansManager,
                        configuration: ConfigurationManager) -> np.ndarray:
    """Modalities on the cropped, transposed grid of a case, at the intensities their files have or would have.

    Outside the mask within which z-scores were taken, nnU-Net leaves a modality at 0: there the result is 0.

    Args:
        normalised: (C, *cropped) float, as the preprocessor would give these modalities before it resamples.
        channels: C channel numbers.
        images: the case as read, from which crop, mask and statistics follow.
        plans, configuration: of the model, all channels.

    Returns:
        (C, *cropped) float32.
    """
    forward = plans.transpose_forward
    data, mask, _ = crop_to_nonzero(images.data.transpose([0, *[axis + 1 for axis in forward]]))
    inside = mask[0] >= 0  # (*cropped)
    rows = {c: i for i, c in enumerate(c for c, has in enumerate(images.available) if has)}
    fingerprint = plans.foreground_intensity_properties_per_channel
    restored = np.empty(normalised.shape, dtype=np.float32)
    for target, image, c in zip(restored, normalised, channels):
        scheme = configuration.normalization_schemes[c]
        masked = scheme == "ZScoreNormalization" and configuration.use_mask_for_norm[c]
        voxels = None
        if c in rows:
            voxels = data[rows[c]][inside] if masked else data[rows[c]]
        scale, offset = scale_and_offset(scheme, voxels, fingerprint[str(c)])
        target[...] = image * scale + offset
        if masked:
            target[~inside] = 0
    return restored
