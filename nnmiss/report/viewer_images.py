"""Reads what the viewer shows of a case: images and label maps on one grid, cut to the brain, with what is left out."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np

from nnmiss.errors import NnmissError
from nnmiss.preprocessing.read_case import reason_of
from nnmiss.preprocessing.voxel_grid import VoxelGrid, grid_difference, itk_grid
from nnmiss.preprocessing.whole_file import why_not_whole
from nnmiss.report.viewer_arrays import Piece, common_box, label_map, window

NIFTI_ENDINGS = (".nii", ".nii.gz")
ITK_FROM_NIFTI = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's x and y grow to the left and back, NIfTI's to right and front


@dataclass
class ViewerCase:
    """Where the files of one case lie.

    Attributes:
        name: of the case.
        images: modality -> NIfTI file, only those the case has, in channel order.
        gt: the true segmentation, if there is one.
        predictions: method -> subset as 'flair+t1' -> segmentation file.
        scores: method -> subset -> text shown beside that prediction, as 'Dice 0.87 (whole tumor), 0.71 (core)'.
    """

    name: str
    images: dict[str, Path]
    gt: Path | None = None
    predictions: dict[str, dict[str, Path]] = field(default_factory=dict)
    scores: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass
class CaseVolumes:
    """What can be shown of one case: uint8 arrays (X, Y, Z) on one grid, and what had to be left out.

    Attributes:
        affine: (4, 4) voxel index -> millimetres, of all arrays.
        images: modality -> intensities, 0 is background.
        gt, predictions: label maps.
        focus_mm: (3,) a point inside what is to be seen.
        notes: one sentence for each file that is not shown.
    """

    name: str
    affine: np.ndarray
    images: dict[str, np.ndarray]
    gt: np.ndarray | None
    predictions: dict[str, dict[str, np.ndarray]]
    focus_mm: tuple[float, float, float]
    notes: list[str]

    def labels(self) -> set[int]:
        """The integers of all its label maps, background left out."""
        maps = [m for of_method in self.predictions.values() for m in of_method.values()]
        maps += [] if self.gt is None else [self.gt]
        counts = sum((np.bincount(m.ravel(), minlength=256) for m in maps), np.zeros(256, dtype=int))
        return set(np.flatnonzero(counts).tolist()) - {0}


def read_case_volumes(case: ViewerCase) -> CaseVolumes:
    """Reads, windows and crops everything of a case. Raises NnmissError when none of its images can be shown.

    The first readable image sets the grid; files on another grid, unreadable ones and those that are not 3-D NIfTI are
    left out, each with a note.
    """
    notes: list[str] = []
    reader = _GridReader(case.name, notes)
    images = {}
    for modality, file in case.images.items():
        piece = reader.read(file, f"{modality} image", window)
        if piece is not None:
            images[modality] = piece
    if not images:
        why = f" ({'; '.join(notes)})" if notes else ": no image of it was found"
        raise NnmissError(f"case {case.name} is not shown{why}")
    gt = None if case.gt is None else reader.read(case.gt, "true segmentation", label_map)
    predictions: dict[str, dict[str, Piece]] = {}
    for method, files in case.predictions.items():
        for subset, file in files.items():
            piece = reader.read(file, f"prediction of {method} with {subset}", label_map)
            if piece is not None:
                predictions.setdefault(method, {})[subset] = piece
    return _cropped(case.name, reader.affine, images, gt, predictions, notes)


class _GridReader:
    """Reads NIfTI files of one case as long as they lie on the grid of the first; notes those that do not."""

    def __init__(self, case: str, notes: list[str]):
        self.case, self.notes = case, notes
        self.affine = np.eye(4)
        self._grid: VoxelGrid | None = None

    def read(self, file: Path, what: str, convert) -> Piece | None:
        """What is not zero of the converted (X, Y, Z) array, or None after noting why there is none."""
        try:
            piece = Piece.of(self._read(Path(file), convert))
        except Exception as error:  # libraries raise whatever they like; one bad file must not cost the report
            self.notes.append(f"case {self.case}: the {what} is not shown: {file}: {reason_of(error)}")
            return None
        if not piece.values.size and convert is window:
            self.notes.append(f"case {self.case}: the {what} is black: {file} is zero everywhere")
        return piece

    def _read(self, file: Path, convert) -> np.ndarray:
        if not file.name.endswith(NIFTI_ENDINGS):
            raise NnmissError("the viewer shows NIfTI files (.nii, .nii.gz) only")
        if not file.is_file():
            raise NnmissError("file not found")
        reason = why_not_whole(str(file))
        if reason is not None:
            raise NnmissError(reason)
        image = nibabel.load(file)
        if len(image.shape) < 3 or any(n > 1 for n in image.shape[3:]) or min(image.shape[:3]) < 2:
            raise NnmissError(f"the viewer shows 3-D images only, this one has shape {image.shape}")
        grid = _grid_of(file, image)
        difference = None if self._grid is None else grid_difference(self._grid, grid)
        if difference is not None:
            raise NnmissError(f"it does not fit the case's first image ({difference})")
        converted = convert(np.asanyarray(image.dataobj).reshape(image.shape[:3]))
        if self._grid is None:
            self._grid, self.affine = grid, itk_affine(grid)
        return converted


def _grid_of(file: Path, image: nibabel.Nifti1Image) -> VoxelGrid:
    """ITK's understanding of the header, with which nnU-Net compares and writes; nibabel's where ITK has none."""
    try:
        return itk_grid(str(file))
    except RuntimeError:  # a sheared affine, or a fourth axis of length one
        affine = ITK_FROM_NIFTI @ image.affine
        return VoxelGrid(image.shape[2::-1], affine[:3, :3], affine[:3, 3])


def itk_affine(grid: VoxelGrid) -> np.ndarray:
    """(4, 4) NIfTI affine, voxel index -> millimetres, of a grid as ITK reads it."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = grid.axes_mm, grid.origin_mm
    return ITK_FROM_NIFTI @ affine


def _cropped(name: str, affine: np.ndarray, images: dict[str, Piece], gt: Piece | None,
             predictions: dict[str, dict[str, Piece]], notes: list[str]) -> CaseVolumes:
    """The case cut to the common box of everything non-zero in it and MARGIN voxels around."""
    labels = [piece for of_method in predictions.values() for piece in of_method.values()]
    box = common_box([*images.values(), *([] if gt is None else [gt]), *labels])
    affine = affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    cut = {m: {s: piece.within(box) for s, piece in of_method.items()} for m, of_method in predictions.items()}
    cropped = CaseVolumes(name, affine, {m: piece.within(box) for m, piece in images.items()},
                          None if gt is None else gt.within(box), cut, (0, 0, 0), notes)
    cropped.focus_mm = tuple(float(v) for v in affine[:3, :3] @ _focus(cropped) + affine[:3, 3])
    return cropped


def _focus(volumes: CaseVolumes) -> np.ndarray:
    """(3,) a voxel of the truth, else of a prediction, in the axial slice with most of it; else the middle."""
    candidates = [] if volumes.gt is None else [volumes.gt]
    candidates += [a for of_method in volumes.predictions.values() for a in of_method.values()]
    axial = int(np.argmax(np.abs(volumes.affine[2, :3]) / np.linalg.norm(volumes.affine[:3, :3], axis=0)))
    for labels in candidates:
        if labels.any():
            sizes = np.count_nonzero(labels, axis=tuple(a for a in range(3) if a != axial))
            voxels = np.argwhere(labels)
            voxels = voxels[voxels[:, axial] == np.argmax(sizes)]
            return voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))]
    return np.array(next(iter(volumes.images.values())).shape) // 2
