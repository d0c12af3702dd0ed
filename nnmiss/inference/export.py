"""Logits of a preprocessed image to files in the input's own geometry, written atomically."""
from __future__ import annotations

import math
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
import torch
from batchgenerators.utilities.file_and_folder_operations import save_pickle
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

from nnmiss.atomic_files import replacing


def export_prediction(logits: np.ndarray, properties: dict, predictor, output: Path, save_probabilities: bool = False,
                      save_uncertainty: bool = False) -> None:
    """Resamples logits to the original grid and writes the segmentation.

    Args:
        logits: (K, *spatial) float32 on the preprocessed grid.
        properties: nnU-Net's properties of the case.
        predictor: gives plans_manager, configuration_manager, label_manager and dataset_json.
        output: path without file ending. Writes <output><ending> (uint8 labels), with `save_probabilities` also
            <output>.npz and .pkl as nnU-Net does, with `save_uncertainty` uncertainty/<case><ending> beside it (float32
            entropy; in a folder of its own, so that nobody takes it for a segmentation).
    """
    ending = predictor.dataset_json["file_ending"]
    writer = predictor.plans_manager.image_reader_writer_class()
    result = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, predictor.plans_manager, predictor.configuration_manager, predictor.label_manager, properties,
        return_probabilities=save_probabilities or save_uncertainty, num_threads_torch=torch.get_num_threads())
    segmentation, probabilities = result if isinstance(result, tuple) else (result, None)
    if save_probabilities:
        with replacing(f"{output}.npz", ".npz") as temporary:
            np.savez_compressed(temporary, probabilities=probabilities)
        with replacing(f"{output}.pkl", ".pkl") as temporary:
            save_pickle(properties, str(temporary))
    if save_uncertainty:
        target = output.parent / "uncertainty" / output.name
        target.parent.mkdir(exist_ok=True)
        write_map(entropy(probabilities, predictor.label_manager.has_regions), properties, target, ending)
    with replacing(f"{output}{ending}", ending) as temporary:  # last: its presence says the case is complete
        writer.write_seg(segmentation, str(temporary), properties)


def entropy(probabilities: np.ndarray, has_regions: bool) -> np.ndarray:
    """Predictive entropy per voxel, scaled to 0 (certain) .. 1 (all classes equally likely), float32.

    Args:
        probabilities: (K, *spatial); softmax over labels, or with `has_regions` one sigmoid per region.

    Returns:
        (*spatial): entropy over the labels / log K, or the mean over regions of the binary entropy / log 2.
    """
    p = np.clip(np.asarray(probabilities, dtype=np.float32), 1e-7, 1 - 1e-7)
    if has_regions:
        return (-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean(0) / math.log(2)).astype(np.float32)
    return np.clip(-(p * np.log(p)).sum(0) / math.log(len(p)), 0, 1).astype(np.float32)


def write_map(values: np.ndarray, properties: dict, output: Path, ending: str) -> None:
    """Writes a float map in the segmentation's geometry; as .npz (key "values") for formats that hold no floats."""
    if "sitk_stuff" in properties:
        geometry = properties["sitk_stuff"]
        image = sitk.GetImageFromArray(values[0] if len(geometry["spacing"]) == 2 else values)
        image.SetSpacing(geometry["spacing"])
        image.SetOrigin(geometry["origin"])
        image.SetDirection(geometry["direction"])
        with replacing(f"{output}{ending}", ending) as temporary:
            sitk.WriteImage(image, str(temporary), True)
    elif "nibabel_stuff" in properties:
        affine = properties["nibabel_stuff"].get("reoriented_affine", properties["nibabel_stuff"]["original_affine"])
        image = nibabel.Nifti1Image(values.transpose(2, 1, 0), affine)
        with replacing(f"{output}{ending}", ending) as temporary:
            nibabel.save(image, temporary)
    else:
        with replacing(f"{output}.npz", ".npz") as temporary:
            np.savez_compressed(temporary, values=values)
