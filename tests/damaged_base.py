"""The small data set that the fuzz tests damage, and the place of one file in it."""
from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

CHANNELS = ("flair", "t1", "t2")
LABELS = {"background": 0, "rim": 1, "core": 2}
SHAPES = {"a0": (20, 22, 24), "a1": (20, 22, 24), "b0": (24, 20, 26), "c0": (22, 24, 20),
          "t0": (20, 22, 24), "t1": (20, 22, 24), "t2": (24, 22, 20)}
TRAINING, TEST = ("a0", "a1", "b0", "c0"), ("t0", "t1", "t2")
TWINS = {"a0": "a1", "a1": "a0", "t0": "t1", "t1": "t0"}  # cases on the same grid
HOLES = {("c0", 1), ("t2", 0)}  # channel files that are absent from the start


@dataclass(frozen=True)
class Place:
    """A case of a data set on disk, one of its channels, and how its files are called."""

    folder: Path  # DatasetXXX_Name
    case: str
    channel: int
    ending: str  # ".nii" or ".nii.gz"

    @property
    def images(self) -> Path:
        return self.folder / ("imagesTr" if self.case in TRAINING else "imagesTs")

    @property
    def file(self) -> Path:
        return self.image()

    @property
    def label(self) -> Path:
        return self.folder / "labelsTr" / f"{self.case}{self.ending}"

    @property
    def channels(self) -> list[int]:
        """The channels that the undamaged case has."""
        return [c for c in range(len(CHANNELS)) if (self.case, c) not in HOLES]

    def image(self, channel: int | None = None, case: str | None = None) -> Path:
        """The file of another channel, or of the same one of another case."""
        channel = self.channel if channel is None else channel
        return self.images / f"{case or self.case}_{channel:04d}{self.ending}"

    def other_channel(self) -> int:
        """Another channel that the case has."""
        return next(c for c in self.channels if c != self.channel)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels as they are stored, and the affine."""
    image = nibabel.Nifti1Image.from_bytes(content(path))
    return np.asanyarray(image.dataobj), image.affine


def content(path: Path) -> bytes:
    """A NIfTI file's bytes, unpacked."""
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def write(path: Path, voxels: np.ndarray, affine: np.ndarray, header: nibabel.Nifti1Header | None = None) -> None:
    """A NIfTI file with the voxels' own type."""
    image = nibabel.Nifti1Image(voxels, affine, header, dtype=voxels.dtype)
    write_bytes(path, image.to_bytes())


def write_bytes(path: Path, data: bytes) -> None:
    """Stores an unpacked NIfTI file's bytes as the name wants them. A link or folder there is replaced."""
    replace(path).write_bytes(gzip.compress(data, 1, mtime=0) if path.name.endswith(".gz") else data)


def replace(path: Path) -> Path:
    """Takes away what is at `path`: copies of the data set share files by hard links, so nothing is written in place."""
    if path.is_symlink() or path.exists():
        path.unlink()
    return path


def make_dataset(raw: Path, ending: str, name: str = "Dataset820_Twin") -> Path:
    """Writes the undamaged data set: integers, 0 outside a brain that fills its image, a box with two labels."""
    folder = raw / name
    for sub in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / sub).mkdir(parents=True)
    for number, (case, shape) in enumerate(SHAPES.items()):
        rng = np.random.default_rng(number)
        turn = nibabel.eulerangles.euler2mat(*(rng.uniform(-0.2, 0.2, 3) if case not in TWINS else (0, 0, 0)))
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.diag((-1, -1, 1))
        affine[:3, 3] = np.round(rng.uniform(-5, 5, 3)) if case not in TWINS else (3, -4, 5)
        corner = rng.integers(4, 8, 3)
        seg = np.zeros(shape, dtype=np.uint8)
        seg[tuple(slice(c, c + 9) for c in corner)] = 1
        seg[tuple(slice(c + 3, c + 6) for c in corner)] = 2
        brain = np.zeros(shape, dtype=bool)
        brain[1:-1, 1:-1, 1:-1] = True
        place = Place(folder, case, 0, ending)
        for channel in place.channels:
            voxels = np.where(brain, rng.normal(300 + 100 * channel, 30, shape) + 90 * seg * (channel - 0.5), 0)
            write(place.image(channel), voxels.astype(np.int16), affine)
        if case in TRAINING:
            write(place.label, seg, affine)
    (folder / "dataset.json").write_text(json.dumps({
        "channel_names": dict(zip("012", CHANNELS)), "labels": LABELS, "numTraining": len(TRAINING),
        "file_ending": ending}))
    return folder


def copy_dataset(source: Path, target: Path) -> Path:
    """A copy by hard links, as fast as listing."""
    for folder, _, names in os.walk(source):
        here = target / Path(folder).relative_to(source)
        here.mkdir(parents=True)
        for name in names:
            os.link(Path(folder) / name, here / name)
    return target
