"""Label maps read from files, quickly and with their geometry, and the regions that dataset.json defines on them."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from nnmiss.errors import NnmissError
from nnmiss.evaluation.hausdorff import spatial_axes
from nnmiss.nifti_header import require_sound_header
from nnmiss.preprocessing.voxel_grid import VoxelGrid, grid_difference, itk_grid, voxel_grid

NIFTI_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class LabelMap:
    """Labels and geometry of one file."""

    labels: np.ndarray
    """C-contiguous integers, axes of length 1 dropped."""
    spacing_mm: tuple[float, ...]
    """Voxel size per axis of `labels`."""
    file_shape: tuple[int, ...]
    """Shape as in the file."""
    grid: VoxelGrid | None
    """Where its voxels lie, as nnU-Net's reader understands the header; None where the format does not say."""


@dataclass(frozen=True)
class Regions:
    """What is evaluated: names with their label values, and what else may stand in a label map."""

    members: dict[str, tuple[int, ...]]
    known: frozenset[int]
    ignore: int | None


def regions_of(dataset_json: dict) -> Regions:
    """The regions (or foreground labels) of a data set, in the order of dataset.json, without background and ignore.

    Raises NnmissError when `labels` is absent, has no foreground, or a region contains the background.
    """
    labels = dataset_json.get("labels")
    if not isinstance(labels, dict):
        raise NnmissError(f'dataset.json: "labels" must map names to values, got {labels!r}')
    try:
        values = {name: tuple(int(v) for v in (value if isinstance(value, list | tuple) else [value]))
                  for name, value in labels.items()}
    except (TypeError, ValueError):
        raise NnmissError(f'dataset.json: "labels" must hold integers or lists of them, got {labels}') from None
    ignore = values.pop("ignore", (None,))[0]
    known = {0}.union(*values.values())
    members = {name: value for name, value in values.items() if any(value)}
    if not members:
        raise NnmissError(f'dataset.json: "labels" has no foreground to evaluate: {labels}')
    wrong = [name for name, value in members.items() if min(value) <= 0]
    if wrong:
        raise NnmissError(f"dataset.json: regions with the background or negative labels cannot be evaluated: {wrong}")
    return Regions(members, frozenset(known), ignore)


def read_label_map(path: str | Path, dataset_json: dict) -> LabelMap:
    """Reads a segmentation: NIfTI through nibabel without a float copy, any other format through nnU-Net's reader.

    Raises NnmissError, naming the file, when it cannot be read whole or holds anything but integers.
    """
    path = Path(path)
    try:
        if path.name.endswith(NIFTI_ENDINGS):
            array, spacing, grid = _read_nifti(path, dataset_json)
        else:
            array, spacing, grid = _read_with_nnunet(path, dataset_json)
    except NnmissError:
        raise
    except Exception as error:  # decoders raise whatever they like on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NnmissError(f"cannot read segmentation {path} ({reason}): the file is damaged or not an image, "
                          "make it again") from None
    axes = spatial_axes(array.shape)
    labels = _as_integers(array, path).reshape([array.shape[i] for i in axes])
    return LabelMap(labels, tuple(float(spacing[i]) for i in axes), tuple(array.shape), grid)


def _read_nifti(path: Path, dataset_json: dict) -> tuple[np.ndarray, tuple[float, ...], VoxelGrid]:
    """Array with axes reversed (nibabel's arrays are in Fortran order: this copies nothing), its spacing, and grid."""
    require_sound_header(path, "segmentation")
    image = nib.load(path)
    array = np.asanyarray(image.dataobj)
    if array.ndim > 3:
        if array.size != int(np.prod(array.shape[:3])):
            raise NnmissError(f"segmentation {path} has shape {array.shape}, expected at most three axes")
        array = array.reshape(array.shape[:3], order="F")
    grid = _nifti_grid(path, image, array.T.shape, dataset_json)
    return array.T, tuple(image.header.get_zooms()[:array.ndim])[::-1], grid


def _nifti_grid(path: Path, image: nib.Nifti1Image, shape: tuple[int, ...], dataset_json: dict) -> VoxelGrid:
    """The grid by the header fields that the data set's reader goes by; they may disagree (qform and sform).

    SimpleITK prefers other fields than nibabel, and wrote the predictions. Where it refuses a header, nnU-Net reads with
    nibabel.
    """
    if "Nibabel" not in str(dataset_json.get("overwrite_image_reader_writer")):
        try:
            return itk_grid(str(path))
        except RuntimeError:
            pass
    full = (1,) * (3 - len(shape)) + tuple(shape)
    return voxel_grid({"nibabel_stuff": {"original_affine": image.affine}}, full)


def _read_with_nnunet(path: Path, dataset_json: dict) -> tuple[np.ndarray, tuple[float, ...], None]:
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    reader = determine_reader_writer_from_dataset_json(dataset_json, verbose=False)()
    array, properties = reader.read_seg(str(path))
    return array[0], tuple(properties["spacing"]), None


def _as_integers(array: np.ndarray, path: Path) -> np.ndarray:
    """C-contiguous; float files are accepted when every value is a whole number."""
    if array.dtype.kind == "f":
        whole = np.rint(array)
        if not np.array_equal(whole, array) or not np.isfinite(whole).all():
            raise NnmissError(f"segmentation {path} holds values that are not whole numbers: it looks like "
                              "probabilities or an image, expected labels")
        array = whole.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise NnmissError(f"segmentation {path} holds {array.dtype}, expected integer labels")
    return np.ascontiguousarray(array)


def check_same_geometry(gt: LabelMap, pred: LabelMap) -> None:
    """Raises NnmissError saying what differs: shape, spacing, or a corner displaced by over a tenth of a voxel.

    The tolerance is preprocessing's, so that what could be trained on can be evaluated.
    """
    if gt.file_shape != pred.file_shape:
        shapes = [m.file_shape if m.grid is None else m.file_shape[::-1] for m in (pred, gt)]
        raise NnmissError(f"shape {shapes[0]} differs from the ground truth's {shapes[1]}")
    if gt.grid is None or pred.grid is None:
        if not np.allclose(gt.spacing_mm, pred.spacing_mm, rtol=1e-3):
            raise NnmissError(f"spacing {pred.spacing_mm} differs from the ground truth's {gt.spacing_mm}")
        return
    difference = grid_difference(pred.grid, gt.grid)
    if difference:
        raise NnmissError(f"it does not lie where the ground truth lies ({difference}). Write the prediction with the "
                          "header of the case's own image")
