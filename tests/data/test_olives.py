"""OLIVES from a few small files in its published form."""

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.data import DataDamaged, DataUnavailable
from tutorial_lib.data.olives import BIOMARKERS, load_healthy_oct, load_olives

HEAD = (
    "Path (Trial/Arm/Folder/Visit/Eye/Image Name),Scan (n/49),Atrophy / thinning of retinal layers,Disruption of EZ,"
    "DRIL,IR hemorrhages,"
    "IR HRF,Partially attached vitreous face,Fully attached vitreous face,Preretinal tissue/hemorrhage,"
    "Vitreous debris,VMT,DRT/ME,Fluid (IRF),Fluid (SRF),Disruption of RPE,Drusen (sub-RPE),Drusen (RPD),GA/MA areas,"
    "PED (serous),PED (fibrovascular),SHRM,Eye_ID,BCVA,CST ,Patient_ID"
)
ROWS = (
    # path, scan, then 20 findings: IR HRF is the fifth, PAVF and FAVF follow, DRT/ME is the eleventh, IRF the twelfth
    "/data/Datasets/TREX DME/GILA/0232GOD/V1/OD/TREXA_000000.tif"
    ",1,0,0,0,0,1,0,1,0,0,0,1,1,0,0,0,0,0,0,0,0,11,57,607,232.0",
    "/data/Datasets/TREX DME/GILA/0232GOS/V2/OS/TREXA_000001.tif"
    ",2,0,0,0,0,1,0,1.0,0,0,0,1,0,0,0,0,0,0,0,0,0,11,57,607,",
    "/data/Datasets/Prime_FULL/02-010/W0/OD/0.tif,1,0,0,0,0,0,1,0.0,0,1,0,0,0,0,0,0,0,0,0,0,0,57,88,307,57.0",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path))
    return tmp_path


def scan(path, grey, size=(504, 496)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size[::-1], grey, dtype=np.uint8)).save(path)


def table(folder, name, *lines):
    path = folder / "OLIVES" / "final_csvs_1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def olives(folder):
    table(folder, "complete_biomarker_training.csv", HEAD, *ROWS)
    scan(folder / "OLIVES/TREX_DME/GILA/0232GOD/V1/OD/TREXA_000000.tif", 40)
    scan(folder / "OLIVES/TREX_DME/GILA/0232GOS/V2/OS/TREXA_000001.tif", 80)
    scan(folder / "OLIVES/Prime_FULL/02-010/W0/OD/0.tif", 120)
    return folder


def test_scans_biomarkers_and_patients(olives):
    scans = load_olives("train", size=12)
    assert scans.images.shape == (3, 1, 12, 12) and scans.images.dtype == torch.uint8
    assert scans.images.float().mean((1, 2, 3)).tolist() == [40, 80, 120]
    assert list(BIOMARKERS) == ["PAVF", "FAVF", "IRF", "DME", "IRHRF"]
    assert scans.biomarkers.tolist() == [[0, 1, 1, 1, 1], [0, 1, 0, 1, 1], [1, 0, 0, 0, 0]]
    assert scans.patients == ("0232", "0232", "02-010"), "both eyes of a patient are one source"
    assert scans.paths[2] == "Prime_FULL/02-010/W0/OD/0.tif"
    images = scans.for_biomarker("DME")
    assert images.labels.tolist() == [1, 1, 0] and images.source.tolist() == [0, 0, 1]
    assert images.class_names == ("without DME", "with DME")


def test_unlabelled_scans_of_both_trials(olives):
    table(olives, "full_prime_train.csv", "File_Path,Patient_ID", "/data/Datasets/Prime_FULL/02-010/W0/OD/0.tif,77")
    trex = "/data/Datasets/TREX DME/GILA/0232GOD/V1/OD/TREXA_000000.tif,0232GOD,GILA"
    table(olives, "full_trex_train.csv", "File_Path,Patient_Code,Study", trex)
    scans = load_olives("unlabelled", size=4)
    assert scans.patients == ("02-010", "0232")
    assert (scans.biomarkers == -1).all() and scans.biomarkers.shape == (2, 5)
    assert len(scans.for_biomarker("PAVF")) == 0


def test_a_limit_draws_the_same_scans_again(olives):
    one, same = load_olives("train", 4, limit=2, seed=5), load_olives("train", 4, limit=2, seed=5)
    assert len(one) == 2 and one.paths == same.paths
    assert {load_olives("train", 4, limit=1, seed=seed).paths for seed in range(8)} > {one.paths[:1]}


def test_what_is_missing_is_said(folder, olives):
    with pytest.raises(
        DataUnavailable, match=r"the test split of OLIVES .*\n.*complete_biomarker_test.csv.*\n.*zenodo"
    ):
        load_olives("test")
    (olives / "OLIVES/Prime_FULL/02-010/W0/OD/0.tif").unlink()
    with pytest.raises(DataUnavailable, match="Prime_FULL/02-010/W0/OD/0.tif"):
        load_olives("train")
    with pytest.raises(ValueError, match="did you mean 'train'"):
        load_olives("trian")
    with pytest.raises(ValueError, match="limit must be at least 1"):
        load_olives("train", limit=0)


def test_a_table_of_another_form_is_refused(folder):
    table(folder, "complete_biomarker_test.csv", HEAD.replace("DRT/ME", "DRT"), ROWS[0])
    with pytest.raises(DataDamaged, match="no column 'DRT/ME'"):
        load_olives("test")
    table(folder, "complete_biomarker_test.csv", HEAD, ROWS[0].replace(",1,0,0,0,0,1,", ",1,0,0,0,0,yes,"))
    with pytest.raises(DataDamaged, match="line 2"):
        load_olives("test")
    table(folder, "complete_biomarker_test.csv", HEAD, ROWS[0].replace("TREX DME", "elsewhere"))
    with pytest.raises(DataDamaged, match="PRIME and TREX"):
        load_olives("test")


def test_biomarkers_have_no_such_name(olives):
    with pytest.raises(ValueError, match="no biomarker 'SRF'"):
        load_olives("train", 4).for_biomarker("SRF")


def test_healthy_scans(folder):
    with pytest.raises(DataUnavailable, match="OCT2017/train/NORMAL"):
        load_healthy_oct()
    for name, grey in (("NORMAL-77-2", 10), ("NORMAL-12-1", 20), ("NORMAL-77-1", 30)):
        scan(folder / "OCT2017/train/NORMAL" / f"{name}.jpeg", grey, size=(768, 496))
    healthy = load_healthy_oct(size=8)
    assert healthy.images.float().mean((1, 2, 3)).round().tolist() == [20, 30, 10]
    assert healthy.source.tolist() == [0, 1, 1] and healthy.labels.tolist() == [0, 0, 0]
    assert len(load_healthy_oct(size=8, limit=2)) == 2
