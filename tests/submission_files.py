"""Small correct BraTS submissions, folders and archives, and the ways in which one file of them is broken."""
from __future__ import annotations

import gzip
import tarfile
import zipfile
from dataclasses import replace

import nibabel as nib
import numpy as np

from nnmiss.brats_years import find_challenge

SHAPE = (7, 6, 5)
QFORM = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])  # every BraTS image until 2023
FORMS = ("Brats18_CBICA_AA{}_1", "BraTS19_CBICA_AA{}_1", "BraTS20_Validation_00{}", "BraTS2021_0000{}",
         "BraTS-MEN-RT-000{}-1", "BraTS-NAME-0000{}-000", "BraTS-NAME-0000{}")
KINDS = ("folder", "zip", "tar", "tar.gz")


def small(year, name="GLI"):
    """A challenge with small images; the shape is compared all the same."""
    challenge = find_challenge(year, name)
    return replace(challenge, shape=SHAPE if challenge.shape else None)


def case_of(challenge, k):
    return next(case for form in FORMS if challenge.is_id(case := form.format(k).replace("NAME", challenge.name)))


def labels_of(challenge):
    """A segmentation with every label of the challenge."""
    labels = np.zeros(SHAPE, np.uint8)
    for k, value in enumerate(challenge.labels.values()):
        labels[1 + k, 2:4] = value
    return labels


def save(array, path, affine=QFORM, header=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine, header)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, path)


def submission(folder, challenge, number=3):
    """Correct segmentations in folder/sub, images in folder/images; returns the cases."""
    cases = [case_of(challenge, k) for k in range(1, number + 1)]
    for case in cases:
        save(labels_of(challenge), folder / "sub" / f"{case}.nii.gz")
        save(np.ones(SHAPE, np.int16), folder / "images" / case / f"{case}_flair.nii.gz")
    return cases


def packed(folder, kind):
    """folder as it is, or packed beside it."""
    if kind == "folder":
        return folder
    target = folder.with_name(f"{folder.name}.{kind}")
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(folder).as_posix())
    else:
        with tarfile.open(target, "w:gz" if kind == "tar.gz" else "w") as archive:
            for file in files:
                archive.add(file, file.relative_to(folder).as_posix())
    return target


def broken(report):
    """{(rule, severity, case)} of a report."""
    return {(f.rule, f.severity, f.case) for f in report.findings}


def break_content(rule, path, challenge):
    """Makes the file at `path` break one rule."""
    labels = labels_of(challenge)
    if rule == "unreadable: cut short":
        path.write_bytes(path.read_bytes()[:-20])
    elif rule == "unreadable: no gzip":
        path.write_bytes(gzip.decompress(path.read_bytes()))
    elif rule == "unreadable: bit flip":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    elif rule == "unreadable: voxels missing":
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-10]))
    elif rule == "unreadable: empty file":
        path.write_bytes(b"")
    elif rule == "dimensions: 4D":
        save(np.stack([labels, labels], -1), path)
    elif rule == "dimensions: trailing axis":
        save(labels[..., None], path)
    elif rule == "shape: cropped":
        save(labels[:-1], path)
    elif rule == "type: probabilities":
        save(labels * np.float32(0.3), path)
    elif rule == "type: NaN":
        save(np.where(labels == 0, np.nan, labels).astype(np.float32), path)
    elif rule == "type: complex":
        save(labels.astype(np.complex64), path)
    elif rule == "labels: foreign":
        labels[0, 0, 0] = 7
        save(labels, path)
    elif rule == "labels: negative":
        save(-labels.astype(np.int16), path)
    else:
        raise AssertionError(rule)
