"""Damage to what NIfTI files hold: kinds of numbers, values, affines, shapes, labels."""
from __future__ import annotations

import struct

import nibabel
import numpy as np
from damaged_base import TWINS, Place, content, read, replace, write, write_bytes
from damaged_files import Random, swap

DIM, PIXDIM, SLOPE, QFORM = 40, 76, 112, 252  # offsets: dim[8] int16, pixdim[8] float32, scl_slope, qform and sform codes


def patched(place: Place, offset: int, form: str, *values: float) -> None:
    """Overwrites numbers in the header."""
    data = bytearray(content(place.file))
    struct.pack_into("<" + form, data, offset, *values)
    write_bytes(place.file, bytes(data))


def _as(place: Place, change) -> None:
    voxels, affine = read(place.file)
    write(place.file, change(voxels), affine)


# ---- kinds of numbers


def complex_numbers(place: Place, rng: Random) -> None:
    _as(place, lambda v: (v + 1j * rng.normal(0, 100, v.shape)).astype(rng.choice([np.complex64, np.complex128])))


def colours(place: Place, rng: Random) -> None:
    voxels, affine = read(place.file)
    kind = np.dtype([(c, np.uint8) for c in "RGB"])
    rgb = np.repeat(voxels.astype(np.uint8)[..., None], 3, -1).copy().view(kind)[..., 0]
    write_bytes(place.file, nibabel.Nifti1Image(rgb, affine).to_bytes())


def other_kind_same_values(place: Place, rng: Random) -> None:
    _as(place, lambda v: v.astype(rng.choice([np.float32, np.float64, np.int32])))


def big_endian(place: Place, rng: Random) -> None:
    voxels, affine = read(place.file)
    header = nibabel.Nifti1Header(endianness=">")
    write(place.file, voxels.astype(">i2"), affine, header)


def scaled_storage(place: Place, rng: Random) -> None:
    """Half the values, with a header that says twice."""
    voxels, affine = read(place.file)
    image = nibabel.Nifti1Image(voxels.astype(np.float32) / 2, affine)
    data = bytearray(image.to_bytes())
    struct.pack_into("<2f", data, SLOPE, 2.0, 0.0)
    write_bytes(place.file, bytes(data))


def odd_scaling(place: Place, rng: Random) -> None:
    patched(place, SLOPE, "2f", *[(np.nan, 0), (np.inf, 0), (1, np.nan), (1, np.inf)][rng.integers(4)])


def odd_bits_per_voxel(place: Place, rng: Random) -> None:
    """Another number of bits than the kind of voxels has, which readers go by."""
    patched(place, 72, "h", [0, 1, 8, 20, 64, 144, -32752][rng.integers(7)])


def one_bit_numbers(place: Place, rng: Random) -> None:
    patched(place, 70, "2h", 1, 1)


def eight_bits(place: Place, rng: Random) -> None:
    """Values beyond 255 wrap: the file is whole and tells nothing."""
    _as(place, lambda v: v.astype(np.uint8))


def beyond_float32(place: Place, rng: Random) -> None:
    _as(place, lambda v: v.astype(np.float64) * 1e40)


# ---- values


def _some(place: Place, rng: Random, value: float) -> None:
    voxels, affine = read(place.file)
    voxels = voxels.astype(rng.choice([np.float32, np.float64]))
    voxels.flat[rng.integers(0, voxels.size, rng.integers(1, 50))] = value
    write(place.file, voxels, affine)


def not_a_number(place: Place, rng: Random) -> None:
    _some(place, rng, np.nan)


def infinite(place: Place, rng: Random) -> None:
    _some(place, rng, rng.choice([np.inf, -np.inf]))


def all_nan(place: Place, rng: Random) -> None:
    _as(place, lambda v: np.full(v.shape, np.nan, np.float32))


def constant(place: Place, rng: Random) -> None:
    _as(place, lambda v: np.full_like(v, rng.integers(1, 100)))


def zero(place: Place, rng: Random) -> None:
    _as(place, np.zeros_like)


# ---- affines


def _moved(place: Place, change, files=None) -> None:
    for file in files or [place.file]:
        voxels, affine = read(file)
        write(file, voxels, change(affine))


def _all_files(place: Place) -> list:
    return [*[place.image(c) for c in place.channels], *([place.label] if place.label.exists() else [])]


def shifted(place: Place, rng: Random) -> None:
    offset = rng.normal(0, 1, 3) * 20 + rng.choice([-3, 3], 3)
    _moved(place, lambda a: a + np.outer([*offset, 0], (0, 0, 0, 1)))


def scaled(place: Place, rng: Random) -> None:
    factor = rng.choice([0.1, 0.5, 0.9, 1.1, 2, 10])
    _moved(place, lambda a: a @ np.diag((factor, factor, factor, 1)))


def flipped(place: Place, rng: Random) -> None:
    signs = np.ones(4)
    signs[rng.integers(0, 3)] = -1
    _moved(place, lambda a: a @ np.diag(signs))


def turned(place: Place, rng: Random) -> None:
    turn = np.eye(4)
    turn[:3, :3] = nibabel.eulerangles.euler2mat(*rng.uniform(0.2, 1, 3))
    _moved(place, lambda a: turn @ a)


def hardly_shifted(place: Place, rng: Random) -> None:
    offset = rng.uniform(-1e-3, 1e-3, 3)
    _moved(place, lambda a: a + np.outer([*offset, 0], (0, 0, 0, 1)))


def all_shifted(place: Place, rng: Random) -> None:
    _moved(place, lambda a: a + np.outer([100, -50, 20, 0], (0, 0, 0, 1)), _all_files(place))


def all_in_other_units(place: Place, rng: Random) -> None:
    """Micrometres or metres written where millimetres belong."""
    factor = rng.choice([1000.0, 0.001])
    _moved(place, lambda a: a @ np.diag((factor, factor, factor, 1)), _all_files(place))


def nan_affine(place: Place, rng: Random) -> None:
    patched(place, QFORM, "2h", 0, 1)
    patched(place, QFORM + 28 + 16 * rng.integers(0, 3) + 4 * rng.integers(0, 4), "f", np.nan)


def no_affine(place: Place, rng: Random) -> None:
    """Neither qform nor sform: readers fall back on the spacing, another grid than the other files'."""
    patched(place, QFORM, "2h", 0, 0)


def no_spacing(place: Place, rng: Random) -> None:
    patched(place, PIXDIM + 4 * rng.integers(1, 4), "f", rng.choice([0.0, -1.0, np.nan, np.inf, 1e-30, 1e30]))


# ---- shapes


def other_shape(place: Place, rng: Random) -> None:
    kinds = [lambda v: v[:-1], lambda v: v[:, 1:], lambda v: v[..., ::2], lambda v: np.repeat(v, 2, 0), lambda v: v[:1],
             lambda v: v[:1, :1, :1]]
    _as(place, kinds[rng.integers(len(kinds))])


def transposed(place: Place, rng: Random) -> None:
    _as(place, lambda v: np.ascontiguousarray(v.transpose((1, 2, 0) if rng.random() < 0.5 else (2, 1, 0))))


def two_volumes(place: Place, rng: Random) -> None:
    _as(place, lambda v: np.stack([v, v], -1))


def fourth_axis_of_one(place: Place, rng: Random) -> None:
    _as(place, lambda v: v[..., None])


def flat(place: Place, rng: Random) -> None:
    _as(place, lambda v: v[..., 0])


def absurd_shape(place: Place, rng: Random) -> None:
    kinds = [(3, 32000, 32000, 32000, 1), (3, -5, 22, 24, 1), (3, 0, 22, 24, 1), (7, 20, 22, 24, 9), (0, 0, 0, 0, 0)]
    patched(place, DIM, "5h", *kinds[rng.integers(5)])


# ---- labels


def _label(place: Place, change) -> None:
    voxels, affine = read(place.label)
    write(place.label, change(voxels), affine)


def label_absent(place: Place, rng: Random) -> None:
    place.label.unlink()


def label_truncated(place: Place, rng: Random) -> None:
    data = place.label.read_bytes()
    replace(place.label).write_bytes(data[: rng.integers(1, len(data))])


def label_unknown(place: Place, rng: Random) -> None:
    _label(place, lambda v: np.where(v == 2, rng.choice([3, 4, 255]), v).astype(np.uint8))


def label_negative(place: Place, rng: Random) -> None:
    _label(place, lambda v: np.where(v == 2, -1, v).astype(np.int16))


def label_fractions(place: Place, rng: Random) -> None:
    _label(place, lambda v: (v * rng.choice([0.5, 0.999])).astype(np.float32))


def label_nan(place: Place, rng: Random) -> None:
    _label(place, lambda v: np.where(v == 2, np.nan, v).astype(np.float32))


def label_complex(place: Place, rng: Random) -> None:
    _label(place, lambda v: (v + 1j * (v == 2)).astype(np.complex64))


def label_other_shape(place: Place, rng: Random) -> None:
    _label(place, lambda v: v[1:])


def label_shifted(place: Place, rng: Random) -> None:
    _moved(place, lambda a: a + np.outer([2, 0, 0, 0], (0, 0, 0, 1)), [place.label])


def label_other_kind(place: Place, rng: Random) -> None:
    _label(place, lambda v: v.astype(rng.choice([np.float32, np.float64, np.int16, np.int32])))


def label_empty(place: Place, rng: Random) -> None:
    _label(place, np.zeros_like)


def label_swapped(place: Place, rng: Random) -> None:
    swap(place.label, place.label.with_name(f"{TWINS[place.case]}{place.ending}"))


def label_is_the_image(place: Place, rng: Random) -> None:
    write(place.label, *read(place.file))


def label_wrong_ending(place: Place, rng: Random) -> None:
    place.label.rename(place.label.with_name(place.case + (".nii" if place.ending == ".nii.gz" else ".nii.gz")))


def label_of_nobody(place: Place, rng: Random) -> None:
    write(place.label.with_name(f"nobody{place.ending}"), *read(place.label))


def label_folder(place: Place, rng: Random) -> None:
    replace(place.label).mkdir()
