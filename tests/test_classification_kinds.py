"""Every kind of modality: reading, cache, fit and transform against slow references, and damaged files named."""
from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch

from nnmiss.classification.kinds import KINDS
from nnmiss.classification.kinds.image_augmentation import chest_xray
from nnmiss.errors import NnmissError
from nnmiss.networks.encoders import build_encoder

RANDOM = np.random.default_rng(0)


def spec_of(kind: str, **entries) -> dict:
    return KINDS[kind].check_spec({"type": kind, **entries}, "dataset.json: modality 'm'")


def refused(call, *arguments) -> str:
    with pytest.raises(NnmissError) as caught:
        call(*arguments)
    return str(caught.value)


def examples() -> dict[str, tuple[dict, list]]:
    """Kind -> (specification, raw values)."""
    series = spec_of("timeseries", columns={"rate": "continuous", "eye": {"kind": "categorical", "values": ["a", "b"]}})
    return {
        "image2d": (spec_of("image2d"), [RANDOM.integers(0, 256, (3, 9, 8), np.uint8) for _ in range(4)]),
        "volume": (spec_of("volume"), [RANDOM.random((1, 4, 5, 6), np.float32) for _ in range(4)]),
        "audio": (spec_of("audio"), [RANDOM.random((1, 20, 20), np.float32) for _ in range(4)]),
        "timeseries": (series, [np.array([[v, np.nan], [np.nan, i % 2]] * (i + 1), np.float32)
                                for i, v in enumerate((1, 2, 5, 7))]),
        "table": (spec_of("table", file="t.csv"),
                  [{"age": a, "sex": s, "größe": "1,5"} for a, s in (("61", "f"), ("", "m"), ("70.5", ""), ("50", "f"))]),
        "array": (spec_of("array"), [np.array([1, np.nan, i], np.float32) for i in range(4)]),
        "embedding": (spec_of("embedding"), [RANDOM.random(5, np.float32) for _ in range(4)]),
    }


def same(first, second) -> bool:
    if isinstance(first, dict):
        return first == second
    return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=True)


@pytest.mark.parametrize("name", list(KINDS))
def test_cache_holds_raw_values_without_objects(tmp_path, name):
    spec, values = examples()[name]
    kind = KINDS[name]
    for some in (values, values[:1], []):
        np.savez(tmp_path / "cache.npz", **kind.pack(some, spec))
        with np.load(tmp_path / "cache.npz", allow_pickle=False) as stored:
            back = kind.unpack(dict(stored), spec)
        assert len(back) == len(some) and all(map(same, some, back))


@pytest.mark.parametrize("name", list(KINDS))
def test_fit_is_json_and_transform_is_finite_float32(name):
    spec, values = examples()[name]
    kind = KINDS[name]
    fitted = kind.fit(values[:3], spec)
    assert json.loads(json.dumps(fitted)) == fitted and json.loads(json.dumps(spec)) == spec
    out = kind.transform(values, spec, fitted)
    assert all(o.dtype == torch.float32 and o.isfinite().all() for o in out) and len(out) == 4
    shape = kind.shape(values, spec)
    assert shape == ((None, out[0].shape[1]) if name == "timeseries" else tuple(out.shape[1:]))
    assert kind.misfits(values, spec, fitted) == {}
    for num_samples in (100, 100_000):
        build_encoder(kind.default_encoder(spec, shape, num_samples), shape)
    assert kind.default_encoder({**spec, "encoder": {"name": "mine"}}, shape, 100) == {"name": "mine"}


@pytest.mark.parametrize("kind, shape, num_samples, name", [
    ("image2d", (1, 28, 28), 900, "lenet"), ("image2d", (1, 28, 28), 60_000, "resnet10"),
    ("image2d", (3, 32, 32), 900, "resnet10"),
    ("image2d", (3, 224, 224), 900, "resnet10"), ("image2d", (3, 224, 224), 100_000, "resnet18"),
    ("audio", (1, 20, 20), 900, "sound_net"), ("audio", (1, 257, 188), 900, "resnet10"),
    ("timeseries", (None, 76), 900, "lstm"),
    ("table", (7,), 900, "mlp"), ("array", (7,), 900, "mlp"), ("array", (1, 28, 28), 900, "lenet"),
    ("array", (1, 16, 16, 16), 900, "cnn3d"), ("array", (24, 5), 900, "lstm"), ("embedding", (768,), 900, "mlp"),
    ("volume", (1, 32, 32, 32), 900, "cnn3d")])
def test_encoders_without_a_hint(kind, shape, num_samples, name):
    spec = KINDS[kind].default_encoder({"type": kind}, shape, num_samples)
    assert spec["name"] == name
    build_encoder(spec, shape)


@pytest.mark.parametrize("name", ["image2d", "volume", "audio", "array", "embedding", "timeseries"])
def test_a_modality_no_training_sample_has(name):
    spec, values = examples()[name]
    kind = KINDS[name]
    fitted = kind.fit([], spec, values[0])
    out = kind.transform(values, spec, fitted)
    assert all(o.isfinite().all() for o in out) and len(kind.transform([], spec, fitted)) == 0
    if name in ("image2d", "volume", "array"):
        assert "shape is unknown" in refused(kind.fit, [], spec)


@pytest.mark.parametrize("entries", [{"size": [16, 12], "channels": 1}, {"size": [16, 12], "channels": 3}])
def test_a_modality_nobody_has(entries):
    spec, kind = spec_of("image2d", **entries), KINDS["image2d"]
    assert tuple(kind.transform([], spec, kind.fit([], spec)).shape) == (0, entries["channels"], 16, 12)


@pytest.mark.parametrize("name", ["image2d", "volume", "audio", "array"])
def test_odd_shapes_are_told_from_the_rest(name):
    spec, values = examples()[name]
    kind = KINDS[name]
    odd = values[0][..., :-1]
    wrong = kind.misfits([values[0], odd, *values[1:]], spec)
    assert list(wrong) == [1] and str(odd.shape) in wrong[1] and str(values[0].shape) in wrong[1]
    assert list(kind.misfits([odd], spec, kind.fit(values, spec))) == [0]


@pytest.mark.parametrize("name, entries, words", [
    ("image2d", {"sise": [1, 2]}, ("sise", "size")), ("image2d", {"size": [0, 3]}, ("size", "whole")),
    ("image2d", {"normalisation": "z"}, ("zscore", "imagenet")), ("image2d", {"channels": 2}, ("channels", "1, 3")),
    ("image2d", {"channels": 1, "normalisation": "imagenet"}, ("three channels",)), ("volume", {"size": [3, 4]}, ("size",)),
    ("audio", {"feature": {"kind": "mfc"}}, ("mfcc",)), ("audio", {"feature": {"hops": 3}}, ("hops", "hop")),
    ("audio", {"feature": {"seconds": None}}, ("hop", "seconds")), ("audio", {"feature": {"n_mfcc": 300}}, ("n_mels",)),
    ("audio", {"feature": {"kind": "log_spectrogram", "n_mels": 3}}, ("n_mels",)), ("audio", {"feature": 3}, ("object",)),
    ("timeseries", {}, ("columns",)), ("timeseries", {"columns": {"a": "categorical"}}, ("'a'", "values")),
    ("timeseries", {"columns": {"a": {"kind": "categorical", "values": ["x"], "normal": "y"}}}, ("'y'", "values")),
    ("timeseries", {"columns": ["a"], "timestep": 0}, ("timestep",)),
    ("timeseries", {"columns": {"a": {"mean": 1}}}, ("sd",)),
    ("timeseries", {"columns": {"a": {"normal": "high"}}}, ("normal",)), ("table", {}, ("file",)),
    ("table", {"file": "a.csv", "columns": {"a": "number"}}, ("numeric", "ignore")),
    ("array", {"scaling": "max"}, ("minmax",)),
])
def test_wrong_specifications_are_refused_with_what_is_expected(name, entries, words):
    message = refused(lambda: spec_of(name, **entries))
    assert "modality 'm'" in message and all(word in message for word in words)


# images ---------------------------------------------------------------------------------------------------------------


def write_image(path, array) -> None:
    from skimage.io import imsave
    imsave(path, array, check_contrast=False)


@pytest.mark.parametrize("shape, channels, expected", [
    ((6, 5), None, (1, 6, 5)), ((6, 5, 3), None, (3, 6, 5)), ((6, 5, 4), None, (3, 6, 5)), ((6, 5, 2), None, (1, 6, 5)),
    ((6, 5), 3, (3, 6, 5)), ((6, 5, 3), 1, (1, 6, 5))])
def test_png_of_any_colour_type(tmp_path, shape, channels, expected):
    array = RANDOM.integers(0, 256, shape, np.uint8)
    write_image(tmp_path / "a.png", array)
    value = KINDS["image2d"].read(tmp_path / "a.png", spec_of("image2d", channels=channels))
    assert value.shape == expected and value.dtype == np.uint8
    if channels == 1:
        assert np.abs(value[0] - (0.299 * array[..., 0] + 0.587 * array[..., 1] + 0.114 * array[..., 2])).max() <= 0.5
    else:
        assert np.array_equal(value[0], array if array.ndim == 2 else array[..., 0])


def test_inks_of_jpegs_for_print_become_colours(tmp_path):
    from PIL import Image

    colours = np.zeros((16, 16, 3), np.uint8)
    colours[..., 0], colours[..., 1] = 250, 40
    Image.fromarray(colours).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    value = KINDS["image2d"].read(tmp_path / "a.jpg", spec_of("image2d"))
    assert np.abs(value.astype(int) - colours.transpose(2, 0, 1)).max() <= 4


def test_sixteen_bit_and_two_level_images():
    kind, spec = KINDS["image2d"], spec_of("image2d")
    assert kind.from_array(np.array([[0, 65535, 257]], np.uint16), spec, "x").tolist() == [[[0, 255, 1]]]
    assert kind.from_array(np.array([[True, False]]), spec, "x").tolist() == [[[255, 0]]]
    assert "float64" in refused(kind.from_array, np.zeros((3, 3)), spec, "x")
    assert "(2, 3, 4, 5)" in refused(kind.from_array, np.zeros((2, 3, 4, 5), np.uint8), spec, "x")


def test_resizing_keeps_what_it_says():
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (40, 64))  # brighter to the right
    stretched = KINDS["image2d"].from_array(ramp, spec_of("image2d", size=[16, 16]), "x")
    assert stretched.shape == (1, 16, 16) and stretched[0, 8, 0] < 12 and stretched[0, 8, -1] > 243
    cropped = KINDS["image2d"].from_array(ramp, spec_of("image2d", size=[16, 16], resize="crop"), "x")
    # 40 x 64 becomes 16 x 26, of which the middle 16 columns stay: 5/26 of the ramp is cut at both ends
    assert cropped[0, 8, 0] == pytest.approx(255 * 5.5 / 26, abs=5)
    assert cropped[0, 8, -1] == pytest.approx(255 * 20.5 / 26, abs=5)


@pytest.mark.parametrize("normalisation", ["zscore", "half", "imagenet"])
def test_image_normalisation(normalisation):
    kind, spec = KINDS["image2d"], spec_of("image2d", normalisation=normalisation)
    values = [RANDOM.integers(0, 256, (3, 7, 6), np.uint8) for _ in range(5)]
    out = kind.transform(values, spec, kind.fit(values[:4], spec)).numpy()
    x = np.stack(values).astype(np.float64)
    mean, sd = {"zscore": (x[:4].mean((0, 2, 3)), x[:4].std((0, 2, 3))), "half": ([127.5] * 3, [127.5] * 3),
                "imagenet": (np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255)}[normalisation]
    for c in range(3):
        assert np.allclose(out[:, c], (x[:, c] - mean[c]) / sd[c], atol=1e-5)


@pytest.mark.parametrize("content, words", [(b"", "cannot be read"), (b"no image", "cannot be read"), (None, "exist")])
def test_images_that_cannot_be_read(tmp_path, content, words):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    assert words in (message := refused(KINDS["image2d"].read, path, spec_of("image2d"))) and "a.png" in message


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_truncated_image_is_named(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    write_image(path, RANDOM.integers(0, 256, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-1500])
    message = refused(KINDS["image2d"].read, path, spec_of("image2d"))
    assert "whole PNG or JPEG" in message and path.name in message


def generator_of(*numbers: float):
    """What `torch.rand` is to give, in the place of a generator."""
    return torch.tensor(numbers)[None]


@pytest.fixture
def drawn(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *_, generator: generator)


def test_chest_xray_augmentation_against_slow_sampling(drawn):
    """Every pixel by its own: where it comes from after a mirror, a turn, a scaling and a shift, bilinear."""
    from scipy.ndimage import map_coordinates
    image, black = torch.rand(11, 16, generator=generator_of(*RANDOM.random(176))).view(1, 1, 11, 16), -0.3
    for numbers in ([0.5] * 5, [0.5, 0.5, 0.5, 0.5, 0.1], [0.9, 0.2, 0.8, 0.3, 0.1], [0.1, 0.9, 0.4, 0.9, 0.7]):
        angle, scale = np.pi / 4 * (2 * numbers[0] - 1), 0.85 + 0.3 * numbers[1]
        right, down = 16 * 0.15 * (2 * numbers[2] - 1), 11 * 0.15 * (2 * numbers[3] - 1)
        y, x = np.mgrid[:11, :16].astype(float)
        y, x = y - 5 - down, x - 7.5 - right
        x, y = (np.cos(angle) * x + np.sin(angle) * y) / scale, (-np.sin(angle) * x + np.cos(angle) * y) / scale
        x = -x if numbers[4] < 0.5 else x
        expected = map_coordinates(image[0, 0].numpy() - black, [y + 5, x + 7.5], order=1, mode="grid-constant") + black
        out = chest_xray(image, torch.full((1, 1, 1), black), generator_of(*numbers))
        assert np.allclose(out[0, 0], expected, atol=1e-4)


def test_augmentation_is_replayed_and_off_by_default():
    kind, values = KINDS["image2d"], torch.rand(4, 3, 8, 8)
    spec, fitted = spec_of("image2d", augmentation="cxr", channels=3), {"mean": [100.0] * 3, "sd": [50.0] * 3}
    first, second = (kind.augment(values, spec, fitted, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, values)
    assert kind.augment(values, spec_of("image2d"), fitted, torch.Generator()) is values


# volumes --------------------------------------------------------------------------------------------------------------


def test_volumes_in_any_orientation_are_read_alike(tmp_path):
    import nibabel
    voxels = RANDOM.random((4, 5, 6), np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "ras.nii.gz")
    flipped = np.diag([-1.0, 1, 1, 1])
    nibabel.save(nibabel.Nifti1Image(voxels[::-1, :, :, None], flipped), tmp_path / "las.nii")
    np.save(tmp_path / "a.npy", voxels.transpose(2, 1, 0))
    read = [KINDS["volume"].read(tmp_path / name, spec_of("volume")) for name in ("ras.nii.gz", "las.nii", "a.npy")]
    assert read[0].shape == (1, 6, 5, 4) and np.array_equal(read[0], read[1]) and np.array_equal(read[0], read[2])


def test_volumes_are_resampled_and_standardised_inside():
    kind, spec = KINDS["volume"], spec_of("volume", size=[4, 4, 4])
    values = np.zeros((8, 8, 8), np.float32)
    values[2:6, 2:6, 2:6] = RANDOM.random((4, 4, 4)) + 100
    value = kind.from_array(values, spec, "x")
    out = kind.transform([value], spec, kind.fit([value], spec))[0]
    inside = torch.from_numpy(value != 0)
    assert value.shape == (1, 4, 4, 4) and (out[~inside] == 0).all()
    assert abs(float(out[inside].mean())) < 1e-5 and float(out[inside].std(correction=0)) == pytest.approx(1, abs=1e-5)
    empty = np.zeros((1, 4, 4, 4), np.float32)
    assert (kind.transform([empty, empty + 3], spec, kind.fit([value], spec)) == 0).all()


def test_volumes_that_cannot_be_read(tmp_path):
    import nibabel
    kind, spec = KINDS["volume"], spec_of("volume")
    nibabel.save(nibabel.Nifti1Image(np.ones((20, 20, 20), np.float32) * RANDOM.random((20, 20, 20)), np.eye(4)),
                 tmp_path / "a.nii.gz")
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:5000])
    assert "cut.nii.gz" in refused(kind.read, tmp_path / "cut.nii.gz", spec)
    assert "does not exist" in refused(kind.read, tmp_path / "b.nii.gz", spec)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    assert "objects.npy" in refused(kind.read, tmp_path / "objects.npy", spec)
    assert "(2, 3, 4, 5)" in refused(kind.from_array, np.zeros((2, 3, 4, 5)), spec, "x")
    assert "NaN" in refused(kind.from_array, np.full((2, 3, 4), np.nan), spec, "x")


# arrays and files of all samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["zscore", "minmax", "none"])
def test_arrays_are_imputed_and_scaled_by_training_alone(scaling):
    kind, spec = KINDS["array"], spec_of("array", scaling=scaling)
    table = RANDOM.normal(3, 2, (6, 5))
    table[:, 4] = 7  # constant
    table[1, 0] = table[5, 1] = np.nan
    table[:, 3] = np.nan
    values = [kind.from_array(row, spec, "x") for row in table]
    out = kind.transform(values, spec, kind.fit(values[:4], spec)).numpy()
    for f in range(5):  # one feature and one sample at a time
        known = [v for v in table[:4, f] if v == v]
        fill = sum(known) / len(known) if known else 0
        column = [fill if v != v else v for v in table[:, f]]
        train = np.array(column[:4])
        shift, scale = {"none": (0, 1), "zscore": (train.mean(), train.std()),
                        "minmax": ((train.min() + train.max()) / 2, (train.max() - train.min()) / 2)}[scaling]
        scale = scale if scale > 1e-6 else 1
        assert np.allclose(out[:, f], [(v - shift) / scale for v in column], atol=1e-5)


def test_arrays_keep_the_shape_that_is_asked_for(tmp_path):
    kind, spec = KINDS["array"], spec_of("array", shape=[1, 2, 3])
    np.save(tmp_path / "a.npy", np.arange(6))
    assert kind.read(tmp_path / "a.npy", spec).shape == (1, 2, 3)
    assert kind.read(tmp_path / "a.npy", spec_of("array")).shape == (6,)
    np.save(tmp_path / "b.npy", np.arange(7))
    assert "(7,)" in refused(kind.read, tmp_path / "b.npy", spec)
    for bad in (np.array([np.inf]), np.array([1e300]), np.array(["a"]), np.zeros(0), np.array([1j])):
        np.save(tmp_path / "c.npy", bad)
        assert "c.npy" in refused(kind.read, tmp_path / "c.npy", spec_of("array"))


def test_an_npz_of_all_samples_is_read_by_id(tmp_path):
    images = RANDOM.integers(0, 256, (3, 5, 4), np.uint8)
    np.savez(tmp_path / "a.npz", ids=["x", "y", "é"], values=images)
    ids, values = KINDS["image2d"].read_file(tmp_path / "a.npz", spec_of("image2d", file="a.npz"))
    assert ids == ["x", "y", "é"] and np.array_equal(np.stack(values)[:, 0], images)
    ids, values = KINDS["audio"].read_file(tmp_path / "a.npz", spec_of("audio", file="a.npz"))
    assert values[0].shape == (1, 5, 4) and values[0].dtype == np.float32
    np.savez(tmp_path / "t.npz", ids=["x"], values=np.array([[[1.5, 1], [np.nan, 0]]]))
    columns = {"a": "continuous", "b": {"kind": "categorical", "values": ["p", "q"]}}
    assert KINDS["timeseries"].read_file(tmp_path / "t.npz", spec_of("timeseries", columns=columns))[1][0].shape == (2, 2)
    np.savez(tmp_path / "t.npz", ids=["x"], values=np.array([[[1.5, 2]]]))
    assert "'b'" in refused(KINDS["timeseries"].read_file, tmp_path / "t.npz", spec_of("timeseries", columns=columns))


@pytest.mark.parametrize("arrays, word", [
    ({"ids": ["a"]}, "values"), ({"ids": ["a", "a"], "values": np.zeros((2, 3))}, "more than once"),
    ({"ids": [1, 2], "values": np.zeros((2, 3))}, "text"), ({"ids": ["a"], "values": np.zeros((2, 3))}, "(2, 3)"),
    ({"ids": ["a"], "values": np.array([{}])}, "Python objects"), (None, "cannot be read")])
def test_an_npz_of_another_form_is_refused(tmp_path, arrays, word):
    path = tmp_path / "bad.npz"
    if arrays is None:
        path.write_bytes(b"PK\x03\x04 cut")
    else:
        np.savez(path, **arrays)
    assert word in (message := refused(KINDS["array"].read_file, path, spec_of("array"))) and "bad.npz" in message


# tables ---------------------------------------------------------------------------------------------------------------

TABLE = """id,age,sex,score,empty,visit
a,61,f,1e2,,2001-01-01
b,,m,50,NA,2001-01-02
c,70.5,,50,,2001-01-03
d,50,f,nan,,2001-01-04
"""


def table(tmp_path, text: str = TABLE, name: str = "t.csv", **entries) -> tuple[dict, list[str], list[dict]]:
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    spec = spec_of("table", file=name, **entries)
    return spec, *KINDS["table"].read_file(tmp_path / name, spec)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_a_table_is_typed_scaled_and_filled_by_training(tmp_path, name):
    spec, ids, values = table(tmp_path, name=name, columns={"visit": "ignore"})
    kind, fitted = KINDS["table"], None
    fitted = kind.fit(values[:3], spec)
    out = kind.transform(values, spec, fitted).numpy()
    assert ids == list("abcd") and fitted["left_out"] == {"empty": "empty in every training sample"}
    ages = [2 * (v - 61) / 9.5 - 1 for v in (61, 65.75, 70.5, 50)]  # training: 61 to 70.5, mean 65.75
    scores = [2 * (v - 50) / 50 - 1 for v in (100, 50, 50, 200 / 3)]
    assert np.allclose(out, np.stack([ages, [1, 0, 1, 1], [0, 1, 0, 0], scores], 1), atol=1e-6)  # f and m tie: f fills


def test_unknown_categories_are_zeros_and_unknown_columns_are_named(tmp_path):
    spec, _, values = table(tmp_path)
    kind = KINDS["table"]
    fitted = kind.fit(values, spec)
    row = {**values[0], "sex": "x"}
    names = list(fitted["columns"])
    assert names == ["age", "sex", "score", "visit"]
    assert kind.transform([row], spec, fitted)[0, 1:3].tolist() == [0, 0]
    assert kind.misfits([row, {**row, "age": "old"}, {"sex": "f"}], spec, fitted).keys() == {1, 2}
    assert "'old'" in kind.misfits([{**row, "age": "old"}], spec, fitted)[0]
    reordered = dict(reversed(values[0].items()))
    assert torch.equal(kind.transform([reordered], spec, fitted), kind.transform(values[:1], spec, fitted))


def test_median_and_zscore(tmp_path):
    spec, _, values = table(tmp_path, "id,a\nw,1\nx,2\ny,9\nz,\n", scaling="zscore", impute="median")
    fitted = KINDS["table"].fit(values, spec)
    column, out = np.array([1, 2, 9, 2]), KINDS["table"].transform(values, spec, fitted)
    assert np.allclose(out[:, 0], (column - column.mean()) / column.std(), atol=1e-6)


def test_a_column_of_names_is_left_out_unless_it_is_asked_for(tmp_path):
    text = "id,who,group\n" + "".join(f"s{i},name {i},{'xy'[i % 2]}\n" for i in range(30))
    spec, _, values = table(tmp_path, text)
    fitted = KINDS["table"].fit(values, spec)
    assert list(fitted["columns"]) == ["group"] and "30 different texts" in fitted["left_out"]["who"]
    asked = spec_of("table", file="t.csv", columns={"who": "categorical"})
    assert len(KINDS["table"].fit(values, asked)["columns"]["who"]["values"]) == 30


@pytest.mark.parametrize("text, entries, words", [
    ("", {}, ("empty",)), ("id,a\n", {}, ("no row",)), ("id,a\nx,1\nx,2\n", {}, ("'x'", "more than once")),
    ("id,a,a\nx,1,2\n", {}, ("'a'",)), ("id,a\nx,1,2\n", {}, ("line 2", "3 cells")), ("id,a\n,1\n", {}, ("row 2",)),
    ("id,a\nx,1\ny,old\n", {"columns": {"a": "numeric"}}, ("'old'", "'y'")), ("id\nx\n", {}, ("no column",)),
    ("id,a\nx,inf\n", {"columns": {"a": "numeric"}}, ("'inf'",)), ("id,a\nx,1\n", {"columns": {"b": "numeric"}}, ("'b'",)),
    ("id,a\nx,\"1\n", {}, ("csv",))])
def test_tables_that_cannot_be_used_are_named(tmp_path, text, entries, words):
    message = refused(lambda: table(tmp_path, text, **entries))
    assert "t.csv" in message and all(word in message for word in words)


def test_damaged_tables_are_named(tmp_path):
    packed = gzip.compress(b"id,a\n" + b"".join(b"s%d,%d\n" % (i, i * i) for i in range(500)))
    for name, content in (("cut.csv.gz", packed[:-40]), ("broken.csv.gz", packed[:200] + b"\xff\x00" * 40 + packed[280:]),
                          ("latin.csv", "id,a\nx,é".encode("latin-1")), ("a.parquet", b"PAR1 no")):
        (tmp_path / name).write_bytes(content)
        assert name in refused(KINDS["table"].read_file, tmp_path / name, spec_of("table", file=name))
    assert "no training sample" in refused(KINDS["table"].fit, [], spec_of("table", file="t.csv"))


def test_texts_that_python_would_read_as_numbers_stay_texts(tmp_path):
    """"3_4" is no 34."""
    text = "id,apoe,age\n" + "".join(f"s{i},3_{i % 2 + 3},{50 + i}\n" for i in range(6))
    spec, _, values = table(tmp_path, text)
    columns = KINDS["table"].fit(values, spec)["columns"]
    assert columns["apoe"]["values"] == ["3_3", "3_4"] and columns["age"]["kind"] == "numeric"
    assert "'3_3'" in refused(lambda: table(tmp_path, text, columns={"apoe": "numeric"}))


def test_the_shape_of_a_table_counts_the_categories_of_all_samples(tmp_path):
    spec, _, values = table(tmp_path, "id,sex\nw,f\nx,m\ny,x\n")
    assert KINDS["table"].shape(values, spec) == (3,)


def test_an_index_as_pandas_writes_it(tmp_path):
    assert table(tmp_path, ",a\nx,1\n")[1:] == (["x"], [{"a": "1"}])
