"""What an export leaves behind: whole or not at all, the same with any number of threads, and images of odd form."""
from __future__ import annotations

import gzip
import json
import os
import threading

import nibabel as nib
import numpy as np
import pytest
from brats_folders import make_brats_folder, save
from test_brats_export import SHAPE, dataset_of, export, labels_of, made, predict, reason, reference  # noqa: F401

from nnmiss.bounded_threads import in_threads
from nnmiss.brats_years import find_challenge
from nnmiss.cli import convert_dataset


def everything(folder):
    """Relative path -> content of all files, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("after", [False, True], ids=["before the move", "after the move"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_export_leaves_the_old_or_the_new(made, tmp_path, monkeypatch, error, after):  # noqa: F811
    """Stopped at each rename in turn; the new export has another subset and lacks one, so moves of all kinds occur."""
    challenge, dataset_json, _ = made
    for name, subset in (("old", "t1"), ("new", "t2")):
        (tmp_path / name / "pred").mkdir(parents=True)
        (tmp_path / name / "images").symlink_to(tmp_path / "images")
        for file in tmp_path.glob("pred/*.nii.gz"):
            for folder in (subset, "flair"):
                (tmp_path / name / "pred" / folder).mkdir(exist_ok=True)
                (tmp_path / name / "pred" / folder / file.name).write_bytes(file.read_bytes())
    (tmp_path / "new" / "out").symlink_to(tmp_path / "old" / "out")
    rename, out = os.replace, tmp_path / "old" / "out"
    outcomes, stop_at = [], 1
    while "finished" not in outcomes:
        export(tmp_path / "old", challenge, dataset_json, overwrite=True)
        old, calls = everything(out), []

        def replace(source, target, stop_at=stop_at, calls=calls):
            calls.append(source)
            if after or len(calls) != stop_at:
                rename(source, target)
            if len(calls) == stop_at:
                raise error("stopped")

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            try:
                export(tmp_path / "new", challenge, dataset_json, overwrite=True)
                outcomes.append("finished")
            except error:
                names = sorted(p.name for p in out.iterdir())
                if "t2" in names:
                    assert names == ["flair", "flair.zip", "manifest.json", "t2", "t2.zip"]
                    assert "t2" in json.loads((out / "manifest.json").read_text())["subsets"]
                    outcomes.append("new")
                else:
                    assert everything(out) == old
                    outcomes.append("old")
        stop_at += 1
    assert outcomes.count("old") > 9 and outcomes.count("new") == (1 if after else 0)


def test_threads_write_the_same_zips(made, tmp_path):  # noqa: F811
    challenge, dataset_json, _ = made
    for seed in range(2, 9):
        reference(tmp_path / "images", challenge, f"BraTS2021_1000{seed}")
        predict(tmp_path / "pred", f"BraTS2021_1000{seed}", labels_of(challenge, seed))
    zips = []
    for threads in (1, 4):
        export(tmp_path, challenge, dataset_json, num_threads=threads, overwrite=True)
        zips.append((tmp_path / "out" / "submission.zip").read_bytes())
    assert zips[0] == zips[1]


def test_threads_begin_only_what_is_soon_wanted():
    taken, release = [], threading.Event()

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    results = in_threads(lambda item: (release.wait(10), item)[1], items(), 3)
    first, future = next(results)
    assert (first, len(taken)) == (0, 4)
    release.set()
    assert future.result() == 0 and [f.result() for _, f in results] == list(range(1, 100))


def test_modalities_used_in_any_order(made, tmp_path):  # noqa: F811
    challenge, dataset_json, cases = made
    predict(tmp_path / "pred", cases[0], labels_of(challenge), used=["T1", "flair"])
    assert export(tmp_path, challenge, dataset_json)["failures"] == []
    (tmp_path / "pred" / "flair+t1").mkdir()
    for file in [*tmp_path.glob("pred/*.nii.gz"), *tmp_path.glob("pred/Bra*.json")]:
        file.rename(tmp_path / "pred" / "flair+t1" / file.name)
    assert export(tmp_path, challenge, dataset_json, overwrite=True)["failures"] == []


def test_a_case_with_images_in_two_folders_is_that_cases_problem(made, tmp_path):  # noqa: F811
    challenge, dataset_json, cases = made
    save(tmp_path / "images" / "again" / f"{cases[0]}_0000.nii.gz", np.ones(SHAPE, np.int16))
    manifest = export(tmp_path, challenge, dataset_json)
    assert "it has images in" in reason(manifest, cases[0])
    assert list(manifest["subsets"]["submission"]["cases"]) == cases[1:]


@pytest.mark.parametrize("kind", ["gzip called .nii", ".NII", ".NII.GZ"])
def test_what_converts_is_exported(kind, tmp_path):
    """A download whose files are called otherwise than they are packed, or in capitals: one walk finds them for both."""
    labels = make_brats_folder(tmp_path / "images", 2021, num_training=2, num_validation=0, shape=SHAPE)
    for file in list(tmp_path.rglob("*.nii.gz")):
        target = file.with_name(file.name.removesuffix(".nii.gz") + kind.split()[-1].removeprefix("called "))
        target.write_bytes(gzip.decompress(file.read_bytes()) if kind == ".NII" else file.read_bytes())
        file.unlink()
    assert convert_dataset.run(["brats2021", "-i", str(tmp_path / "images"), "-o", str(tmp_path / "raw"), "-np", "1"]) == 0
    (raw,) = (tmp_path / "raw").iterdir()
    (raw / "labelsTr").rename(tmp_path / "pred")
    challenge = find_challenge(2021)
    manifest = export(tmp_path, challenge, dataset_of(challenge))
    assert manifest["failures"] == [] and manifest["subsets"]["submission"]["n_cases"] == 2
    for case, label in labels.items():
        assert np.array_equal(np.asanyarray(nib.load(tmp_path / "out/submission" / f"{case}.nii.gz").dataobj), label)
