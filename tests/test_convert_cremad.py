"""CREMA-D: recordings and frames joined by the clip's name; splits by actor, at random and by the published lists."""
from __future__ import annotations

from functools import partial

import pytest
from brats_folders import run_converter
from sample_sources import content_of, manifest_of, read_back, write_image, write_wav

from nnmiss.dataset_conversion import cremad
from nnmiss.dataset_conversion.cremad_files import EMOTIONS
from nnmiss.errors import NnmissError

ACTORS = [f"{1001 + i}" for i in range(8)]
CLIPS = [f"{actor}_IEO_{emotion}_XX" for actor in ACTORS for emotion in EMOTIONS]


@pytest.fixture
def source(tmp_path):
    """AudioWAV and Image-01-FPS as OGM-GE's script leaves them: a folder of numbered frames a clip."""
    folder = tmp_path / "CREMA-D"
    for number, clip in enumerate(CLIPS):
        write_wav(folder / "AudioWAV" / f"{clip}.wav", rate=16000, seed=number)
        for frame in (0, 30, 60):
            write_image(folder / "Image-01-FPS" / clip / f"{frame:05d}.jpg", seed=3 * number + frame)
    (folder / "AudioWAV" / "readme.txt").write_text("not a recording")
    return folder


def convert(source, tmp_path, *more, **options):
    return cremad.convert([source, *more], tmp_path / "raw", 853,
                          cremad.Options(overwrite=True, disable_progress_bar=True, **options))


@pytest.fixture
def run(monkeypatch, capsys):
    return partial(run_converter, monkeypatch, capsys)


def test_clips_get_their_middle_frame_their_recording_and_their_emotion(source, tmp_path):
    summary = convert(source, tmp_path)
    manifest = manifest_of(summary.folder)
    assert sorted(manifest.index) == sorted(CLIPS) and not summary.notes
    for clip, row in manifest.iterrows():
        assert row["label"] == str(list(EMOTIONS).index(clip.split("_")[2])) and row["subject_id"] == clip[:4]
        assert (summary.folder / row["image"]).read_bytes() == (source / "Image-01-FPS" / clip / "00030.jpg").read_bytes()
        assert (summary.folder / row["sound"]).read_bytes() == (source / "AudioWAV" / f"{clip}.wav").read_bytes()
    first = manifest_of(convert(source, tmp_path, frame="first").folder)["image"].iloc[0]
    assert (tmp_path / "raw/Dataset853_CREMAD" / first).read_bytes() == \
        (source / "Image-01-FPS" / manifest.index[0] / "00000.jpg").read_bytes()


def test_planning_reads_grey_pictures_and_three_seconds_of_sound(source, tmp_path):
    pytest.importorskip("librosa")
    raw = read_back(convert(source, tmp_path, image_size=16).folder)
    assert raw.values["image"][0].shape == (1, 16, 16)
    assert raw.values["sound"][0].shape == (1, 257, 188)  # 512 / 2 + 1 frequencies, 1 + 3 s * 22050 Hz // 353 frames


def test_actors_lie_in_one_split_and_the_seed_decides_which(source, tmp_path):
    summary = convert(source, tmp_path)
    manifest = manifest_of(summary.folder)
    by_actor = manifest.groupby("subject_id")["split"].unique()
    assert all(len(splits) == 1 for splits in by_actor) and set(manifest["split"]) == {"train", "val", "test"}
    others = [manifest_of(convert(source, tmp_path, seed=seed).folder)["split"] for seed in (1, 2, 3)]
    assert any(not split.equals(manifest["split"]) for split in others)


def test_random_split_has_the_published_shares_and_warns(source, tmp_path):
    summary = convert(source, tmp_path, split="random")
    assert {p: len(ids) for p, ids in summary.parts.items()} == {"train": 34, "val": 7, "test": 7}
    assert any("actors are in several splits" in note for note in summary.notes)
    assert round(0.15 * 7442) == 1116 and 7442 - 2 * 1116 == 5210  # MIND's numbers by the same rule
    assert "subject_id" not in manifest_of(summary.folder).columns


def test_published_lists_decide_and_what_they_do_not_name_is_left_out(source, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    lines = [f"{clip},{clip.split('_')[2]}\n" for clip in [*CLIPS, "1091_WSI_SAD_XX"]]
    (lists / "train.csv").write_text("\ufeff" + "".join(lines[:30]), "utf-8")
    (lists / "test.csv").write_text("".join([*lines[30:40], lines[-1]]))
    summary = convert(source, tmp_path, lists, split="lists")
    assert set(summary.parts["test"]) == set(CLIPS[30:40]) and len(summary.parts["val"]) == round(0.15 * 30)
    assert set(summary.parts["train"] + summary.parts["val"]) == set(CLIPS[:30])
    assert any("8 clips are in neither" in note for note in summary.notes)
    assert any("1 clips of the lists are not there: 1091_WSI_SAD_XX" in note for note in summary.notes)
    with pytest.raises(NnmissError, match=r"needs train.csv"):
        convert(source, tmp_path, split="lists")
    for content in (b"", b"\xff\xfe\xff", b'1001_IEO_NEU_XX,"NEU\n'):
        (lists / "train.csv").write_bytes(content)
        with pytest.raises(NnmissError, match=r"train.csv cannot be read as csv"):
            convert(source, tmp_path, lists, split="lists")


def test_clips_without_frames_are_samples_of_one_modality_and_damaged_ones_are_named(source, tmp_path, run):
    for path in (source / "Image-01-FPS" / CLIPS[0]).iterdir():
        path.unlink()
    (source / "AudioWAV" / f"{CLIPS[1]}.wav").write_bytes(b"")
    frame = source / "Image-01-FPS" / CLIPS[2] / "00030.jpg"
    frame.write_bytes(frame.read_bytes()[:-20])
    done = run("cremad", "-i", source, "-o", tmp_path / "raw", "-d", 7, "--copy", "link", "--disable_progress_bar")
    assert done.returncode == 1
    assert f"error: {CLIPS[1]} was not converted" in done.stderr and f"error: {CLIPS[2]} was not converted" in done.stderr
    assert "truncated JPEG" in done.stderr and "1 clips have no frame" in done.stdout
    folder = tmp_path / "raw" / "Dataset007_CREMAD"
    manifest = manifest_of(folder)
    assert len(manifest) == len(CLIPS) - 2 and manifest.loc[CLIPS[0], "image"] == ""
    assert set(content_of(folder, "left_out.json")) == set(CLIPS[1:3])
    sound = folder / manifest.loc[CLIPS[3], "sound"]
    assert sound.samefile(source / "AudioWAV" / f"{CLIPS[3]}.wav")


def test_videos_without_frames_are_refused_with_how_to_make_them(source, tmp_path):
    import shutil

    shutil.rmtree(source / "Image-01-FPS")
    with pytest.raises(NnmissError, match="ffmpeg -i VideoFlash"):
        convert(source, tmp_path)
    with pytest.raises(NnmissError, match="no recordings"):
        convert(tmp_path / "elsewhere", tmp_path)


def test_what_planning_would_refuse_is_not_written(source, tmp_path):
    with pytest.raises(NnmissError, match=r"modality 'image': 'size' is \[-3, -3\]"):
        convert(source, tmp_path, image_size=-3)
    assert not (tmp_path / "raw").exists()
