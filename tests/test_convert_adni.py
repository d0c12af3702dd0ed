"""The ADNI converter: labels, tables without leaks, genotypes of several sets, pruning, imaging and gaps."""
from __future__ import annotations

import json
import stat
import sys

import numpy as np
import pandas as pd
import pytest
from adni_folders import (
    CLINICAL,
    CONVERTER,
    FIRST_SET,
    FLUID,
    GENETIC,
    SCANNED,
    SECOND_SET,
    SUBJECTS,
    UNKNOWN,
    make_adni,
    true_calls,
)

from nnmiss.classification.description import read_description
from nnmiss.dataset_conversion import adni
from nnmiss.dataset_conversion.adni import Options
from nnmiss.dataset_conversion.adni_clinical import clinical_table, column_kinds
from nnmiss.dataset_conversion.adni_genotypes import Genotypes
from nnmiss.dataset_conversion.adni_pruning import MAX_R2, by_windows, kept_variants
from nnmiss.dataset_conversion.adni_splits import split_of_participants
from nnmiss.errors import NnmissError

pytest.importorskip("bed_reader", reason="bed-reader reads and writes the genotypes (nnmiss[genetics])")


def convert(source, tmp_path, **options):
    return adni.convert([source], tmp_path / "raw", 858, Options(**{"pruning": "own", **options}))


def read(summary, name):
    return pd.read_csv(summary.folder / name, dtype=str, keep_default_na=False).set_index("sample_id")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_adni(tmp_path_factory.mktemp("adni"))


@pytest.fixture(scope="module")
def summary(source, tmp_path_factory):
    return convert(source, tmp_path_factory.mktemp("converted"))


def test_participants_with_one_diagnosis_at_every_visit_are_kept(summary):
    table = read(summary, "manifest.csv")
    assert {ptid: int(label) for ptid, label in table["label"].items()} == {p: n % 3 for n, p in enumerate(SUBJECTS)}
    notes = " ".join(summary.notes)
    assert "without a diagnosis at some visit: 1" in notes and "because the diagnosis changes: 1" in notes
    assert table["split"].to_dict() == split_of_participants({p: n % 3 for n, p in enumerate(SUBJECTS)}, None, 0)[0]
    counts = table.groupby(["label", "split"]).size().unstack()
    assert (counts[["train", "val", "test"]].sum() == [28, 6, 6]).all() and counts.min().min() == 2


def test_a_baseline_diagnosis_comes_with_the_values_of_the_first_visits(source, tmp_path):
    found = convert(source, tmp_path, label="baseline")
    table, clinical = read(found, "manifest.csv"), read(found, "tables/clinical.csv")
    assert CONVERTER not in table.index  # it has a diagnosis, but none of the modalities
    assert "without any modality: 2" in " ".join(found.notes) and UNKNOWN not in table.index
    assert clinical["VITALS_VSBPSYS"][CLINICAL[3]] == "113"


def test_gaps_are_the_natural_ones(summary):
    modalities = {"clinical": CLINICAL, "genomic": GENETIC, "biospecimen": FLUID, "imaging": SCANNED}
    assert tuple(modalities) == summary.modalities
    for ptid in SUBJECTS:
        assert summary.modalities_of(ptid) == [m for m, owners in modalities.items() if ptid in owners]


def test_columns_that_give_the_diagnosis_away_are_not_there(summary):
    columns = read(summary, "tables/clinical.csv").columns
    assert set(columns) == {"PTDEMOG_PTGENDER", "PTDEMOG_PTEDUCAT", "PTDEMOG_PTDOBYY", "VITALS_VSWEIGHT", "VITALS_VSBPSYS",
                            "MEDHIST_MHPSYCH"}
    left_out = json.loads((summary.folder / "provenance.json").read_text())["columns_left_out"]["clinical"]
    assert left_out["RECCMEDS_NUMMEDS"] == "the same for all"  # donepezil is not counted
    assert "free text" in left_out["MEDHIST_MHCOMM"]


def test_values_are_the_last_known_ones_in_one_unit_and_nothing_is_imputed_or_scaled(summary):
    clinical, fluid = read(summary, "tables/clinical.csv"), read(summary, "tables/biospecimen.csv")
    ptid = CLINICAL[3]
    assert clinical["VITALS_VSBPSYS"][ptid] == "118"  # of m12
    assert float(clinical["VITALS_VSWEIGHT"][ptid]) == pytest.approx(153 * 0.453592, abs=0.01)  # of bl, in pounds
    assert clinical["PTDEMOG_PTDOBYY"][ptid] == "1933"
    assert fluid["ELECSYS_TAU"][FLUID[4]] == "241"  # found by RID alone
    modalities = read_description(summary.folder).modalities
    assert modalities["clinical"]["columns"]["PTDEMOG_PTGENDER"] == "categorical"
    assert modalities["clinical"]["columns"]["PTDEMOG_PTEDUCAT"] == "numeric"
    assert modalities["imaging"]["scaling"] == "zscore" and modalities["genomic"]["scaling"] == "minmax"


def test_assays_lose_their_signs_and_genotypes_are_ordered():
    from nnmiss.dataset_conversion.adni_clinical import biospecimen_table

    table = biospecimen_table({
        "APOERES": pd.DataFrame({"PTID": ["a", "b"], "APGEN1": ["4", "3"], "APGEN2": ["3", "3"]}, dtype=object),
        "UPENNBIOMK_ROCHE_ELECSYS": pd.DataFrame({"PTID": ["a", "b"], "ABETA42": [">1700", "< 8"], "PTAU": [None, "x"]},
                                                 dtype=object)}, False)
    assert table["APOERES_GENOTYPE"].tolist() == ["3/4", "3/3"] and table["ELECSYS_ABETA42"].tolist() == ["1700", "8"]
    assert table["ELECSYS_PTAU"].isna().all()


def test_visits_are_known_by_whichever_code_and_date_a_row_has():
    from nnmiss.dataset_conversion.adni_clinical import biospecimen_table

    rows = pd.DataFrame({"PTID": ["a"] * 3, "VISCODE": ["bl", "m12", "m24"], "VISCODE2": [None, "m12", "m24"],
                         "EXAMDATE": ["2006-01-01", None, "2005-06-01"], "USERDATE": ["2006-01-02", "2012-01-01", None],
                         "VSBPSYS": ["110", "120", "130"]}, dtype=object)
    assert clinical_table({"VITALS": rows}, False)["VITALS_VSBPSYS"].to_dict() == {"a": "120"}
    assert clinical_table({"VITALS": rows}, True)["VITALS_VSBPSYS"].to_dict() == {"a": "110"}
    genes = pd.DataFrame({"PTID": ["a"], "VISCODE": ["m06"], "GENOTYPE": ["4/3"]}, dtype=object)
    assert biospecimen_table({"APOERES": genes}, True)["APOERES_GENOTYPE"].to_dict() == {"a": "3/4"}


def test_column_kinds_go_by_the_form_of_the_cells():
    table = pd.DataFrame({"PTDEMOG_A": ["1", "2"] * 15, "VITALS_VSTEMP": ["36", "37"] * 15,
                          "MEDHIST_B": [str(n) for n in range(30)], "MEDHIST_C": ["yes", None] * 15,
                          "MEDHIST_D": ["a|b", "c"] * 15, "MEDHIST_E": [f"text {n}" for n in range(30)]}, dtype=object)
    kinds, left_out = column_kinds(table)
    assert kinds == {"PTDEMOG_A": "categorical", "VITALS_VSTEMP": "numeric", "MEDHIST_B": "numeric",
                     "MEDHIST_D": "categorical"}
    assert set(left_out) == {"MEDHIST_C", "MEDHIST_E"}


def test_medications_are_counted_once_each_without_those_against_dementia():
    rows = pd.DataFrame({"PTID": ["a"] * 4 + ["b"], "CMMED": ["Aspirin", "aspirin", "Namenda XR", "Insulin", None]},
                        dtype=object)
    assert clinical_table({"RECCMEDS": rows}, False)["RECCMEDS_NUMMEDS"].to_dict() == {"a": "2", "b": "0"}


def test_genotypes_of_two_sets_are_joined_by_name_and_turned_to_one_allele(source, tmp_path):
    found = convert(source, tmp_path, pruning="none")
    with np.load(found.folder / "genomic.npz", allow_pickle=False) as content:
        ids, values = content["ids"].tolist(), content["values"]
    variants = pd.read_csv(found.folder / "genomic_variants.csv")
    assert variants["id"].tolist() == ["rs1", "rs2", "rs3", "rs4", "rs9"]  # not A/T, one set's own, an insertion, nor X
    assert ids == sorted(GENETIC) and len(set(FIRST_SET) & set(SECOND_SET)) == 2
    expected = np.array([true_calls()[ptid][[0, 1, 2, 3, 8]] for ptid in ids]).astype(float)
    expected[expected == -127] = np.nan
    assert np.array_equal(values.astype(float), expected, equal_nan=True)


def linked_calls():
    """100 participants, 120 variants on two chromosomes; every third is a noisy copy of the one before."""
    rng = np.random.default_rng(0)
    calls = rng.binomial(2, rng.uniform(0.2, 0.5, 120), (400, 120))
    for s in range(1, 120, 3):
        calls[:, s] = np.where(rng.random(400) < 0.9, calls[:, s - 1], calls[:, s])
    calls[rng.random(calls.shape) < 0.02] = -127
    return calls.astype(np.int8), np.repeat(["1", "2"], 60)


def test_pruning_leaves_no_pair_in_a_window_above_the_threshold_and_drops_little_else():
    calls, chromosome = linked_calls()
    kept = by_windows(calls, chromosome)
    assert 75 <= kept.sum() <= 80  # of 40 linked pairs one each
    filled = np.where(calls == -127, np.nan, calls)
    mean = np.nanmean(filled, 0)
    filled = np.where(np.isnan(filled), mean, filled)
    r2 = np.corrcoef(filled.T) ** 2
    for i in np.flatnonzero(kept):
        for j in np.flatnonzero(kept):
            if i < j < i + 45 and chromosome[i] == chromosome[j]:
                assert r2[i, j] <= MAX_R2
    dropped = np.flatnonzero(~kept)
    frequency = np.minimum(mean / 2, 1 - mean / 2)
    for s in dropped:
        assert any(r2[s, t] > MAX_R2 and frequency[t] >= frequency[s] for t in range(120) if t != s)


def test_only_training_participants_decide_which_variants_stay():
    calls, chromosome = linked_calls()
    variants = pd.DataFrame({"id": [f"rs{n}" for n in range(120)], "chromosome": chromosome, "position": np.arange(120),
                             "allele": "A", "other": "G"})
    rows = list(range(200))
    kept, pruner = kept_variants(Genotypes([str(n) for n in range(400)], variants, calls), rows, "own")
    changed = calls.copy()
    changed[200:] = changed[200:, ::-1]
    again, _ = kept_variants(Genotypes([str(n) for n in range(400)], variants, changed), rows, "own")
    assert pruner == "own" and np.array_equal(kept, again)
    changed[:200, 7] = 1  # does not vary in training
    assert not kept_variants(Genotypes([str(n) for n in range(400)], variants, changed), rows, "none")[0][7]


def test_plink_is_asked_when_it_is_on_the_path(source, tmp_path, monkeypatch):
    program = tmp_path / "bin" / "plink"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n" + PLINK)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    found = convert(source, tmp_path, pruning="auto")
    assert pd.read_csv(found.folder / "genomic_variants.csv")["id"].tolist() == ["rs1", "rs9"]
    assert json.loads((found.folder / "provenance.json").read_text())["pruned_by"] == "plink"
    program.write_text("#!/bin/sh\necho out of memory\nexit 3\n")
    with pytest.raises(NnmissError, match="exit code 3: out of memory"):
        convert(source, tmp_path, pruning="plink", overwrite=True)


PLINK = """
import sys
from pathlib import Path
arguments = dict(zip(sys.argv, sys.argv[1:]))
start = sys.argv.index("--indep-pairwise")
assert sys.argv[start + 1:start + 4] == ["50", "5", "0.1"], sys.argv
bed = Path(arguments["--bfile"])
assert all(bed.with_suffix(e).is_file() for e in (".bed", ".bim", ".fam"))
names = [line.split()[1] for line in bed.with_suffix(".bim").read_text().splitlines()]
Path(arguments["--out"] + ".prune.in").write_text("\\n".join((names[0], names[-1])))
"""


def test_freesurfer_rows_that_failed_the_quality_check_do_not_count(summary):
    table = read(summary, "tables/imaging.csv")
    raw = pd.read_csv(sorted_path(summary), dtype=str)
    assert set(table.columns) == {"ST24CV", "ST29SV", "ST24TA"}
    for ptid, visit in ((SCANNED[0], "sc"), (SCANNED[1], "m12")):
        own = raw[(raw["PTID"] == ptid) & (raw["VISCODE"] == visit)].iloc[0]
        assert table.loc[ptid, "ST24CV"] == str(own["ST24CV"]).removesuffix(".0")


def sorted_path(summary):
    return json.loads((summary.folder / "provenance.json").read_text())["tables"]["imaging"]


def test_volumes_are_the_last_scan_of_each_and_bad_ones_are_named(tmp_path):
    import nibabel as nib

    source = make_adni(tmp_path / "adni", volumes=True, genotypes=False)
    damaged = source / "image" / f"{SCANNED[2]}_2012-04-18.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:50])
    flat = source / "image" / f"{SCANNED[4]}_2012-04-18.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((6, 7), np.float32), np.eye(4)), flat)
    found = convert(source, tmp_path)
    assert set(found.failed) == {SCANNED[2], SCANNED[4]} and str(damaged) in found.failed[SCANNED[2]]
    assert "three axes" in found.failed[SCANNED[4]] and str(flat) in found.failed[SCANNED[4]]
    assert len(list((found.folder / "imaging").iterdir())) == len(SCANNED) - 2  # no file of those left out
    assert nib.load(found.folder / "imaging" / f"{SCANNED[3]}.nii.gz").get_fdata()[0, 0, 0] == 32
    assert "genomic" not in found.modalities and read_description(found.folder).modalities["imaging"]["type"] == "volume"
    first = convert(source, tmp_path, label="baseline", overwrite=True)
    assert nib.load(first.folder / "imaging" / f"{SCANNED[3]}.nii.gz").get_fdata()[0, 0, 0] == 30


def test_published_splits_are_taken_over(source, tmp_path):
    (tmp_path / "splits.json").write_text(json.dumps(
        {"training": SUBJECTS[:30], "validation": SUBJECTS[30:34], "testing": SUBJECTS[34:39]}))
    found = convert(source, tmp_path, splits=tmp_path / "splits.json")
    parts = read(found, "manifest.csv")["split"]
    assert {p for p in parts.index if parts[p] == "val"} == set(SUBJECTS[30:34])
    assert parts.value_counts().to_dict() == {"train": 30, "test": 5, "val": 4}
    assert "left out because --splits does not name them: 1 participants" in found.notes


def test_only_participants_of_the_splits_are_written_and_modalities_of_nobody_are_not(tmp_path):
    source = make_adni(tmp_path / "adni", volumes=True)
    people = {"train": SUBJECTS[30:36], "val": SUBJECTS[36:38], "test": SUBJECTS[38:]}  # none of whom was scanned
    (tmp_path / "splits.json").write_text(json.dumps(people))
    found = convert(source, tmp_path, splits=tmp_path / "splits.json")
    assert "imaging" not in found.modalities and not (found.folder / "imaging").exists()
    for name in ("clinical", "biospecimen"):
        assert set(read(found, f"tables/{name}.csv").index) <= set(SUBJECTS[30:])
    with np.load(found.folder / "genomic.npz", allow_pickle=False) as content:
        assert content["ids"].tolist() == sorted(SUBJECTS[30:])
    (tmp_path / "splits.json").write_text(json.dumps({"test": SUBJECTS[:10]}))
    with pytest.raises(NnmissError, match="none of the 40 participants is in train"):
        convert(source, tmp_path, splits=tmp_path / "splits.json", overwrite=True)


def test_a_bad_source_is_named(tmp_path):
    with pytest.raises(NnmissError, match="does not exist"):
        convert(tmp_path / "nowhere", tmp_path)
    source = make_adni(tmp_path / "adni", genotypes=False)
    diagnosis = source / "diagnosis" / "DXSUM_PDXCONV_22Apr2024.csv"
    rows = pd.read_csv(diagnosis, dtype=str)
    rows.loc[0, "DIAGNOSIS"] = "5"
    rows.to_csv(diagnosis, index=False)
    found = convert(source, tmp_path)
    assert "DIAGNOSIS is '5', expected 1, 2 or 3" in found.failed[SUBJECTS[0]]
    (source / "DXSUM.csv").write_bytes(diagnosis.read_bytes())
    with pytest.raises(NnmissError, match="2 files of one table"):
        convert(source, tmp_path)
    (source / "DXSUM.csv").unlink()
    rows.drop(columns="DIAGNOSIS").to_csv(diagnosis, index=False)
    with pytest.raises(NnmissError, match="no column DIAGNOSIS"):
        convert(source, tmp_path)
    diagnosis.unlink()
    with pytest.raises(NnmissError, match="no DXSUM table"):
        convert(source, tmp_path)


def test_a_plink_set_that_is_not_whole_is_named(tmp_path):
    source = make_adni(tmp_path / "adni")
    (source / "genomic" / "ADNI_set_1.bim").unlink()
    with pytest.raises(NnmissError, match=r"no ADNI_set_1\.bim beside it"):
        convert(source, tmp_path)
    source = make_adni(tmp_path / "another")
    (source / "genomic" / "ADNI_set_1.fam").write_bytes(b"")
    with pytest.raises(NnmissError, match=r"ADNI_set_1\.fam names nobody"):
        convert(source, tmp_path)
