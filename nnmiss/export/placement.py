"""Puts the voxels of a prediction where those of the case's own image lie: as they are, or with axes turned, exactly."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from nnmiss.errors import NnmissError
from nnmiss.export.nifti_files import image_header, itk_voxel_grid, shape_of
from nnmiss.nifti_files import stem
from nnmiss.preprocessing.voxel_grid import VoxelGrid, grid_difference, itk_grid, voxel_grid

AS_IT_IS = np.array([[0, 1], [1, 1], [2, 1]])


@dataclass(frozen=True)
class Placement:
    """How to go from the prediction's voxels to the reference's."""

    orientation: np.ndarray  # (3, 2), as nibabel.orientations: where each axis goes, and 1 or -1

    @property
    def turned(self) -> bool:
        """Whether anything changes."""
        return not np.array_equal(self.orientation, AS_IT_IS)

    def apply(self, volume: np.ndarray) -> np.ndarray:
        """(x, y, z) of the prediction's file -> (x, y, z) of the reference's; only permutes and flips."""
        return apply_orientation(volume, self.orientation) if self.turned else volume


def find_placement(prediction: Path, reference: Path, nibabel_first: bool = False) -> Placement:
    """Compares the headers of two files, to a tenth of a voxel at every corner, as nnmiss does everywhere.

    A NIfTI header may hold two positions (qform and sform) that disagree. The prediction was written by the one that the
    data set's reader goes by (ITK's choice, or with `nibabel_first` nibabel's); the other is tried next, and
    only then are axes turned, by the first.

    Raises NnmissError, naming both files and what differs, when the prediction lies elsewhere, was resampled or cropped;
    when a file is not a three-dimensional image.
    """
    pairs = _readings(prediction, reference, nibabel_first)
    differences = [grid_difference(ours, theirs) for ours, theirs in pairs]
    if None in differences:
        return Placement(AS_IT_IS)
    orientation = _turn(*pairs[0])
    if orientation is None:
        raise NnmissError(f"prediction {prediction} does not lie on the voxels of {reference} ({differences[0]}): export "
                          "what was predicted from this image, in its own geometry (not resampled, cropped or registered)")
    return Placement(orientation)


def _readings(prediction: Path, reference: Path, nibabel_first: bool) -> list[tuple[VoxelGrid, VoxelGrid]]:
    """(prediction's grid, reference's grid) by each library that can read both headers, the preferred one first."""
    found, reasons = [], []
    for read in (_nibabel_grid, _itk_grid) if nibabel_first else (_itk_grid, _nibabel_grid):
        try:
            found.append((read(prediction), read(reference)))
        except Exception as error:  # decoders raise whatever they like on damaged files
            reasons.append(" ".join(str(error).split())[-200:] or type(error).__name__)
    if not found:
        raise NnmissError(f"cannot read the geometry of {prediction} and {reference} ({reasons[0]}): one of them is "
                          "damaged or not a three-dimensional image")
    return found


def _itk_grid(path: Path) -> VoxelGrid:
    return itk_voxel_grid(image_header(path)) if stem(path.name) else itk_grid(str(path))


def _nibabel_grid(path: Path) -> VoxelGrid:
    header = image_header(path)
    mended = type(header)(header.binaryblock, header.endianness)  # as nibabel.load does
    return voxel_grid({"nibabel_stuff": {"original_affine": mended.get_best_affine()}}, shape_of(header)[::-1])


def _turn(prediction: VoxelGrid, reference: VoxelGrid) -> np.ndarray | None:
    """The permutation and flips that put the prediction on the reference's grid; None when none does."""
    if sorted(prediction.shape) != sorted(reference.shape):
        return None
    affine, target = _affine(prediction), _affine(reference)
    if np.linalg.matrix_rank(target) < 4:  # a header without a usable position
        return None
    orientation = io_orientation(np.linalg.inv(target) @ affine)
    if np.isnan(orientation).any():
        return None
    shape = prediction.shape[::-1]
    turned = affine @ inv_ornt_aff(orientation, shape)
    new_shape = tuple(int(n) for n in np.array(shape)[np.argsort(orientation[:, 0])])
    grid = VoxelGrid(new_shape[::-1], turned[:3, :3], turned[:3, 3])
    return orientation if grid_difference(reference, grid) is None else None


def _affine(grid: VoxelGrid) -> np.ndarray:
    """(4, 4) voxel index (x, y, z) -> millimetres."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = grid.axes_mm, grid.origin_mm
    return affine
