"""Pictures of sound: MFCC as SMIL's loaders make them and without their decimation, and spectrograms."""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from nnmiss.classification.kinds.spec_checks import check_keys, one_of, positive, whole_number
from nnmiss.errors import NnmissError

PRESETS = {  # of MFCC; any key can be overridden
    "sane": {"decimate": 1, "sample_rate": None, "mel_sample_rate": None, "n_fft": 512, "hop": None, "seconds": 1.0},
    "smil": {"decimate": 3, "sample_rate": 8000, "mel_sample_rate": 8000, "n_fft": 2048, "hop": 512, "seconds": None},
}
KEYS = {
    "mfcc": ("preset", "sample_rate", "decimate", "mel_sample_rate", "n_fft", "hop", "seconds", "n_mels", "n_mfcc", "width",
             "pad_mode"),
    "mel_spectrogram": ("sample_rate", "n_fft", "hop", "seconds", "n_mels", "width", "pad_mode"),
    "log_spectrogram": ("sample_rate", "n_fft", "hop", "seconds", "fill", "pad_mode"),
}


def check_feature(feature: dict, where: str) -> dict:
    """The audio modality's "feature" with its defaults. Raises NnmissError, beginning with `where`."""
    feature, where = dict(feature) if isinstance(feature, dict) else feature, f'{where}: "feature"'
    check_keys(feature, ("kind", *(feature if isinstance(feature, dict) else ())), where)
    kind = one_of(feature, "kind", tuple(KEYS), where)
    check_keys(feature, ("kind", *KEYS[kind]), f"{where} of kind {kind!r}")
    preset = one_of(feature, "preset", tuple(PRESETS), where) if kind == "mfcc" else "sane"
    given = {**PRESETS[preset], **feature}
    out = {"kind": kind, "pad_mode": one_of(given, "pad_mode", ("reflect", "constant"), where)}
    if kind == "log_spectrogram":  # CREMA-D as OGM-GE and MIND prepare it
        return {**out, "sample_rate": whole_number(feature, "sample_rate", 22050, where),
                "n_fft": whole_number(feature, "n_fft", 512, where, 2), "hop": whole_number(feature, "hop", 353, where),
                "seconds": positive(feature, "seconds", 3.0, where),
                "fill": one_of(feature, "fill", ("tile", "zeros"), where)}
    out.update(sample_rate=whole_number(given, "sample_rate", None, where),
               n_fft=whole_number(given, "n_fft", 512, where, 2), hop=whole_number(given, "hop", None, where),
               seconds=positive(given, "seconds", None, where),
               n_mels=whole_number(given, "n_mels", 128 if kind == "mfcc" else 64, where),
               width=whole_number(given, "width", 20 if kind == "mfcc" else 64, where))
    if not out["hop"] and not out["seconds"]:
        raise NnmissError(f'{where} needs "hop" (samples) or "seconds" (what "width" frames shall cover)')
    if kind == "mfcc":
        out.update(preset=preset, decimate=whole_number(given, "decimate", 1, where),
                   mel_sample_rate=whole_number(given, "mel_sample_rate", None, where),
                   n_mfcc=whole_number(given, "n_mfcc", 20, where))
        if out["n_mfcc"] > out["n_mels"]:
            raise NnmissError(f'{where}: "n_mfcc" is {out["n_mfcc"]}, more than "n_mels" {out["n_mels"]}')
    return out


def feature_shape(feature: dict) -> list[int]:
    """[1, rows, columns] of a picture."""
    if feature["kind"] == "log_spectrogram":
        samples = int(feature["seconds"] * feature["sample_rate"])
        return [1, feature["n_fft"] // 2 + 1, 1 + samples // feature["hop"]]
    return [1, feature["n_mfcc"] if feature["kind"] == "mfcc" else feature["n_mels"], feature["width"]]


def read_wave(path: str | Path, sample_rate: int | None) -> tuple[np.ndarray, int]:
    """((n,) float32 mono wave, its rate in Hz), resampled when `sample_rate` is given and differs.

    Raises NnmissError when the package is lacking or the file is damaged, empty or holds NaN.
    """
    librosa, soundfile = audio_packages()
    try:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except Exception as error:  # soundfile's own errors, and those of the system
        raise NnmissError(f"{path} cannot be read as sound ({error}): expected a whole wav or flac file") from None
    wave = wave.mean(1)
    if not len(wave):
        raise NnmissError(f"{path} holds no sound: it has 0 samples")
    if not np.isfinite(wave).all():
        raise NnmissError(f"{path} holds {int((~np.isfinite(wave)).sum())} samples that are NaN or infinite")
    if sample_rate and rate != sample_rate:
        wave, rate = librosa.resample(wave, orig_sr=rate, target_sr=sample_rate), sample_rate
    return wave, rate


def audio_packages() -> tuple:
    """(librosa, soundfile). Raises NnmissError when they are not installed."""
    try:
        import librosa
        import soundfile
    except ImportError as error:
        raise NnmissError(f'sound needs librosa and soundfile ({error}): pip install "nnmiss[audio]"') from None
    return librosa, soundfile


def picture(wave: np.ndarray, rate: int, feature: dict) -> np.ndarray:
    """The feature (1, rows, columns) float32 of a wave (n,)."""
    if feature["kind"] == "log_spectrogram":
        length = int(feature["seconds"] * rate)
        if feature["fill"] == "tile":
            wave = np.tile(wave, -(-length // len(wave)))
        wave = np.pad(wave[:length], (0, max(0, length - len(wave)))).clip(-1, 1)
        return np.log(np.sqrt(_power(wave, feature["n_fft"], feature["hop"], feature["pad_mode"])) + 1e-7)[None]
    librosa, _ = audio_packages()
    decimate = feature.get("decimate", 1)
    wave, rate = np.ascontiguousarray(wave[::decimate]), rate / decimate
    hop = feature["hop"] or int(feature["seconds"] * rate / feature["width"]) + 1
    power = _power(wave, feature["n_fft"], hop, feature["pad_mode"])
    mel = _mel_basis(feature.get("mel_sample_rate") or rate, feature["n_fft"], feature["n_mels"]) @ power
    out = librosa.power_to_db(mel)
    if feature["kind"] == "mfcc":
        out = librosa.feature.mfcc(S=out, n_mfcc=feature["n_mfcc"])
    out = out[:, :feature["width"]]
    return np.pad(out, ((0, 0), (0, feature["width"] - out.shape[1])))[None].astype(np.float32)


def _power(wave: np.ndarray, n_fft: int, hop: int, pad_mode: str) -> np.ndarray:
    """(n_fft / 2 + 1, 1 + n // hop) power spectrum of centred Hann windows.

    Padded here and not by librosa, which warns of every clip that is shorter than the window.
    """
    librosa, _ = audio_packages()
    padded = np.pad(wave, n_fft // 2, mode=pad_mode)
    return np.abs(librosa.stft(padded, n_fft=n_fft, hop_length=hop, center=False)) ** 2


@lru_cache(maxsize=16)
def _mel_basis(rate: float, n_fft: int, n_mels: int) -> np.ndarray:
    librosa, _ = audio_packages()
    return librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels)
