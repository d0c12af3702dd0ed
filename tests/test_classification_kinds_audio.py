"""Sound: the MFCC of SMIL against an independently built file, features from their formulas, and damaged recordings."""
from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from nnmiss.classification.kinds import KINDS
from nnmiss.errors import NnmissError

pytest.importorskip("librosa")
soundfile = pytest.importorskip("soundfile")
KIND = KINDS["audio"]
REAL_DATA = Path(os.environ.get("NNMISS_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")


def spec_of(normalisation: str = "zscore", **feature) -> dict:
    return KIND.check_spec({"type": "audio", "feature": feature, "normalisation": normalisation}, "x")


def write_tone(path: Path, seconds: float = 0.5, rate: int = 8000, pitch: float = 440, channels: int = 1) -> Path:
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * pitch * time) + 0.01 * np.random.default_rng(0).normal(size=len(time))
    soundfile.write(path, np.stack([wave] * channels, 1), rate, subtype="FLOAT")
    return path


def test_the_smil_preset_gives_the_mfcc_of_audiovision_mnist():
    reference = REAL_DATA / "avmnist" / "avmnist.npz"
    if not reference.is_file():
        pytest.skip(f"{reference} is not there")
    spec = spec_of(preset="smil")
    with np.load(reference) as content:
        names, mfcc = content["audio_file"], content["mfcc"]
    for i in range(0, len(names), 37):
        out = KIND.read(REAL_DATA / "fsdd" / "recordings" / str(names[i]), spec)
        assert out.shape == (1, 20, 20) and np.allclose(out[0], mfcc[i], rtol=1e-4, atol=5e-3), names[i]


def slow_mfcc(wave: np.ndarray, rate: float, n_fft: int, hop: int, n_mels: int, n_mfcc: int) -> np.ndarray:
    """(n_mfcc, frames) by the definitions: reflected ends, Hann, DFT, Slaney's mel triangles, dB, DCT-II."""
    padded = np.pad(wave.astype(np.float64), n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = [padded[start:start + n_fft] * window for start in range(0, len(padded) - n_fft + 1, hop)]
    power = np.abs(np.fft.rfft(np.stack(frames), axis=1)) ** 2  # (frames, bins)

    def mel(hertz):
        return np.where(hertz < 1000, hertz * 3 / 200, 15 + np.log(np.maximum(hertz, 1) / 1000) / (np.log(6.4) / 27))

    def hertz(mels):
        return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))

    edges = hertz(np.linspace(0, mel(np.array(rate / 2)), n_mels + 2))
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    triangles = [np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)) * 2 / (high - low)
                 for low, mid, high in zip(edges, edges[1:], edges[2:])]
    bank = np.stack(triangles).clip(0)
    decibels = 10 * np.log10(np.maximum(bank @ power.T, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - 80)
    k, n = np.arange(n_mfcc)[:, None], np.arange(n_mels)
    basis = np.cos(np.pi * k * (2 * n + 1) / (2 * n_mels)) * np.sqrt(np.where(k == 0, 1, 2) / n_mels)
    return basis @ decibels


@pytest.mark.parametrize("preset, seconds", [("smil", 0.4), ("smil", 0.05), ("sane", 0.4), ("sane", 3.0)])
def test_mfcc_by_its_definition(tmp_path, preset, seconds):
    path = write_tone(tmp_path / "a.wav", seconds)
    wave, _ = soundfile.read(path, dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # librosa warns of clips shorter than the window
        out = KIND.read(path, spec_of(preset=preset))[0]
    if preset == "smil":
        expected = slow_mfcc(wave[::3], 8000, 2048, 512, 128, 20)
    else:
        expected = slow_mfcc(wave, 8000, 512, 401, 128, 20)  # 20 hops of 401 just cover one second
    frames = min(20, expected.shape[1])
    assert np.allclose(out[:, :frames], expected[:, :frames], atol=2e-2) and (out[:, frames:] == 0).all()


def test_log_spectrogram_of_three_tiled_seconds(tmp_path):
    spec = spec_of(kind="log_spectrogram")
    wave, rate = soundfile.read(write_tone(tmp_path / "a.wav", 1.3, 22050), dtype="float32")
    out = KIND.read(tmp_path / "a.wav", spec)
    tiled = np.concatenate([wave] * 3)[:3 * rate].clip(-1, 1)
    padded = np.pad(tiled, 256, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    expected = np.stack([np.log(np.abs(np.fft.rfft(padded[s:s + 512] * window)) + 1e-7)
                         for s in range(0, len(padded) - 511, 353)], 1)
    assert out.shape == (1, 257, 188) == tuple(KIND.fit([], spec)["raw_shape"])
    assert np.abs(np.exp(out[0]) - np.exp(expected)).max() < 1e-3  # the log of nearly nothing differs
    silent = KIND.read(tmp_path / "a.wav", spec_of(kind="log_spectrogram", fill="zeros"))
    assert (silent[0, :, 100:] < -15).all() and not (out[0, :, 100:] < -15).all()


def test_mel_spectrogram_of_a_given_size(tmp_path):
    path = write_tone(tmp_path / "a.wav", 2.0, 16000, pitch=2000)
    out = KIND.read(path, spec_of(kind="mel_spectrogram", n_mels=32, width=40, seconds=2.0))
    assert out.shape == (1, 32, 40) and len(set(out[0, :, 1:-1].argmax(0))) == 1  # one pitch throughout


def test_rates_channels_and_one_sample(tmp_path):
    spec = spec_of(preset="smil")
    mono = KIND.read(write_tone(tmp_path / "a.wav"), spec)
    assert np.allclose(KIND.read(write_tone(tmp_path / "b.wav", channels=2), spec), mono, atol=1e-3)
    assert KIND.read(write_tone(tmp_path / "c.wav", rate=16000), spec).shape == mono.shape  # resampled to 8 kHz
    soundfile.write(tmp_path / "one.wav", np.zeros(1), 8000)
    for feature in ({"preset": "smil"}, {}, {"kind": "log_spectrogram"}, {"kind": "mel_spectrogram"}):
        assert np.isfinite(KIND.read(tmp_path / "one.wav", spec_of(**feature))).all()


def test_normalisation():
    values = [np.random.default_rng(i).normal(-50, 20, (1, 20, 20)).astype(np.float32) for i in range(5)]
    raw = KIND.transform(values, spec := spec_of("half_raw", preset="smil"), KIND.fit(values, spec))
    assert np.allclose(raw, (np.stack(values) - 0.5) / 0.5, atol=1e-4)
    out = KIND.transform(values, spec := spec_of(), KIND.fit(values[:4], spec)).numpy()
    for row in range(20):
        train = np.stack(values[:4])[:, 0, row].astype(np.float64)
        assert np.allclose(out[:, 0, row], (np.stack(values)[:, 0, row] - train.mean()) / train.std(), atol=1e-4)


def test_recordings_that_cannot_be_used_are_named(tmp_path):
    write_tone(tmp_path / "whole.wav")
    (tmp_path / "cut.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:30])
    (tmp_path / "text.wav").write_text("not sound")
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan, 0.1]), 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    for name in ("cut", "text", "nan", "empty", "absent"):
        with pytest.raises(NnmissError, match=f"{name}.wav"):
            KIND.read(tmp_path / f"{name}.wav", spec_of())
