"""Reference photographs, the ladder, and readers of the databases on small made-up folders."""

import importlib.util

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from tutorial_lib.data.corruptions import corrupt
from tutorial_lib.data.errors import DataDamaged, DataUnavailable
from tutorial_lib.image_quality import (
    DISTORTIONS,
    REFERENCES,
    against_level,
    faint_ladder,
    ladder,
    load_live_crops,
    load_multi_live,
    load_tid2013,
    psnr,
    reference_images,
    score_ladder,
)


def test_photographs_of_scikit_learn_are_always_there():
    images = reference_images(["flower", "china"], size=40)
    assert images.shape == (2, 3, 40, 40) and images.dtype == torch.uint8
    assert images[1].float().std() > 20
    assert not torch.equal(images[0], images[1])


def test_all_photographs_are_colourful_squares():
    pytest.importorskip("skimage")
    images = reference_images(size=24)
    assert len(images) == len(REFERENCES) == 9
    assert (images.float().std(dim=(1, 2, 3)) > 10).all()


def test_without_scikit_image_one_is_told_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataUnavailable, match="pip install scikit-image"):
        reference_images(["astronaut"])


def test_names_are_checked():
    with pytest.raises(ValueError, match="astronaut"):
        reference_images(["astronut"])
    with pytest.raises(ValueError, match="contrast"):
        ladder(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ["a"], ["contrst"])
    with pytest.raises(ValueError, match="different names"):
        ladder(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ["a", "a"])


@pytest.fixture(scope="module")
def rungs():
    return ladder(reference_images(["china", "flower"], size=48), ["china", "flower"])


def test_the_ladder_holds_what_it_says(rungs):
    assert len(rungs) == 2 * 4 * 5
    row = next(i for i in range(40) if rungs.group()[i] == "flower, contrast" and rungs.level[i] == 4)
    expected = corrupt(rungs.references[1:], "contrast", 4, family="cifar10_c")[0]
    assert torch.equal(rungs.distorted[row], expected)


def test_psnr_climbs_the_ladder(rungs):
    score = score_ladder(rungs, rungs.quality(psnr))
    assert score.pairs_right > 0.95 and score.srcc > 0.95
    assert set(score.by_distortion) == {"blur", "jpeg", "noise", "contrast"}


def test_scores_of_a_ladder(rungs):
    perfect = score_ladder(rungs, -rungs.level)
    assert (perfect.srcc, perfect.pairs_right) == (pytest.approx(1), 1)
    assert score_ladder(rungs, rungs.level).srcc == pytest.approx(-1)
    constant = score_ladder(rungs, np.zeros(40))
    assert (constant.srcc, constant.pairs_right) == (0, 0.5)
    with pytest.raises(ValueError, match=r"quality must be \(40,\)"):
        score_ladder(rungs, np.zeros(3))


def test_every_corruption_of_the_course_is_on_offer():
    assert len(DISTORTIONS) == 8 + 19
    assert len({(d.family, d.corruption) for d in DISTORTIONS.values()}) == 27


def picture(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12), (shade, 2 * shade % 256, 7)).save(path, "BMP")


@pytest.fixture
def tid(tmp_path):
    """Two references, two distortions, two levels, with the capitals as they come."""
    names = []
    for n, reference in enumerate(("I01", "i25")):
        picture(tmp_path / "reference_images" / f"{reference}.BMP", 10 + n)
        for kind in ("01", "24"):
            for level in (1, 2):
                names.append(f"{reference}_{kind}_{level}.bmp")
                picture(tmp_path / "distorted_images" / names[-1].upper().replace("BMP", "bmp"), 50 + len(names))
    scores = "".join(f"{5 + n / 10:.5f} {name}\r\n" for n, name in enumerate(names))
    (tmp_path / "mos_with_names.txt").write_text(scores)
    (tmp_path / "mos_std.txt").write_text("".join(f"0.{n + 1}\n" for n in range(8)))
    return tmp_path


def test_tid2013(tid):
    database = load_tid2013(tid)
    assert len(database) == 8 and database.higher_is_better
    assert database.opinions.tolist() == pytest.approx([5 + n / 10 for n in range(8)])
    assert database.deviations[2] == 0.3
    assert database.distortion[:3] == ("distortion_01", "distortion_01", "distortion_24")
    reference, distorted = list(database.pairs())[4]
    assert reference[0, :, 0, 0].tolist() == [11, 22, 7] and reference.shape == (1, 3, 12, 16)
    assert distorted[0, 0, 0, 0] == 55
    assert database.quality(psnr, progress=False)[4] == pytest.approx(psnr(reference, distorted)[0])


def test_tid2013_with_something_missing(tid):
    with pytest.raises(DataUnavailable, match="mos_with_names.txt is missing"):
        load_tid2013(tid / "nowhere")
    (tid / "distorted_images" / "I01_24_2.bmp").unlink()
    with pytest.raises(DataUnavailable, match="i01_24_2.bmp"):
        load_tid2013(tid)
    (tid / "mos_std.txt").write_text("0.1\n")
    with pytest.raises(DataDamaged, match="8 and 1"):
        load_tid2013(tid)


@pytest.fixture
def multi(tmp_path):
    """Two references and three distorted images in each part, three observers."""
    for part, kind in (("Part 1", "blurjpeg"), ("Part 2", "blurnoise")):
        names = ["babygirl_1.bmp", "hunter_1.bmp", "hunter_2.bmp"]
        for n, name in enumerate(["babygirl.bmp", "hunter.bmp", *names]):
            picture(tmp_path / part / kind / name, 20 + n)
        lists = {
            "distimgs": np.array([[n] for n in names], dtype=object),
            "refimgs": np.array([["babygirl.bmp"], ["hunter.bmp"]], dtype=object),
            "ref4dist": np.array([[1], [2], [2]], dtype=np.uint8),
        }
        scipy.io.savemat(tmp_path / part / "Imagelists.mat", lists)
        opinions = {
            "DMOSscores": np.array([[10.0, 20.0, 30.0]]) + (part == "Part 2"),
            "dist_diffscores": np.array([[1.0, 2, 3], [3, 2, 5], [5, 2, 10]]),
        }
        scipy.io.savemat(tmp_path / part / "Scores.mat", opinions)
    return tmp_path


def test_multi_live(multi):
    database = load_multi_live(multi)
    assert len(database) == 6 and not database.higher_is_better
    assert database.opinions.tolist() == [10, 20, 30, 11, 21, 31]
    assert database.deviations[:3] == pytest.approx([2, 0, np.std([3, 5, 10], ddof=1)])
    assert database.distortion == ("blurjpeg",) * 3 + ("blurnoise",) * 3
    assert [path.name for path in database.references[:3]] == ["babygirl.bmp", "hunter.bmp", "hunter.bmp"]
    assert database.distorted[5].relative_to(multi).as_posix() == "Part 2/blurnoise/hunter_2.bmp"


def test_multi_live_with_something_wrong(multi):
    (multi / "Part 2" / "blurnoise" / "hunter.bmp").unlink()
    with pytest.raises(DataUnavailable, match="hunter.bmp"):
        load_multi_live(multi)
    (multi / "Part 1" / "Scores.mat").write_bytes(b"no MATLAB")
    with pytest.raises(DataDamaged, match="Scores.mat"):
        load_multi_live(multi)
    (multi / "Part 1" / "Imagelists.mat").unlink()
    with pytest.raises(DataUnavailable, match="Imagelists.mat is missing"):
        load_multi_live(multi)


@pytest.fixture
def crops(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(5, 12, 12, 3), dtype=np.uint8)
    content = {
        "images": images,
        "labels": np.array([0, 0, 1, 2, 2]),
        "ref": np.array([0, 1, 1, 0, 1]),
        "classes": np.array(["reference", "gblur", "jpeg"]),
        "ref_names": np.array(["buildings", "parrots"]),
        "psnr_full": np.array([np.inf, np.inf, 20, 30, 40]),
        "ssim_full": np.array([1, 1, 0.5, 0.6, 0.7]),
    }
    np.savez(tmp_path / "crops.npz", **content)
    return tmp_path / "crops.npz", content


def test_live_crops(crops):
    path, content = crops
    live = load_live_crops(path)
    assert len(live) == 3 and live.references.shape == (2, 3, 12, 12)
    assert live.distortion == ("gblur", "jpeg", "jpeg") and live.psnr_full.tolist() == [20, 30, 40]
    np.testing.assert_array_equal(live.distorted[0].permute(1, 2, 0), content["images"][2])
    by_hand = psnr(live.references[1:2], live.distorted[:1])[0]
    assert live.quality(psnr)[0] == pytest.approx(by_hand)


def test_live_crops_that_are_not_there_or_not_right(crops, tmp_path, monkeypatch):
    path, content = crops
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path / "empty"))
    with pytest.raises(DataUnavailable, match="TUTORIAL_DATA"):
        load_live_crops()
    np.savez(path, **content | {"ref": np.array([1, 0, 1, 0, 1])})
    with pytest.raises(DataDamaged, match="references must come first"):
        load_live_crops(path)
    path.write_bytes(b"no archive")
    with pytest.raises(DataDamaged, match="get it again"):
        load_live_crops(path)


def test_the_faint_ladder_is_faint_and_its_noise_is_fresh():
    names = ["china", "flower"]
    rungs = faint_ladder(reference_images(names, size=48), names)
    assert len(rungs) == 2 * 4 * 8 and rungs.level.max() == 8
    quality = rungs.quality(psnr)
    assert quality.min() > 25
    noise = [i for i in range(len(rungs)) if rungs.distortion[i] == "noise" and rungs.reference[i] == 0]
    grain = (rungs.distorted[noise].double() - rungs.references[:1]).flatten(1)
    correlation = np.corrcoef(grain.numpy()) - np.eye(8)
    assert np.abs(correlation).max() < 0.1  # the same noise, only stronger, would have about 1
    sizes = grain.std(dim=1).numpy()
    assert sizes[0] == pytest.approx((1 + 1 / 12) ** 0.5, rel=0.15) and (np.diff(sizes) > 0).all()


def test_neighbours_are_one_level_apart(rungs):
    swapped = -rungs.level.astype(float)
    swapped[rungs.level == 2], swapped[rungs.level == 3] = -3, -2  # one of four neighbours wrong, everywhere
    score = score_ladder(rungs, swapped)
    assert (score.neighbours_right, score.pairs_right) == (0.75, 0.9)


def test_one_curve_to_the_level(rungs):
    exact = against_level(rungs, 0.9**rungs.level)
    assert set(exact) == {"blur", "jpeg", "noise", "contrast"}
    assert exact["blur"].plcc > 0.99 and exact["blur"].outlier_ratio == 0 and exact["blur"].count == 10
    blind = against_level(rungs, rungs.reference.astype(float))["blur"]  # knows the photograph and nothing else
    assert (blind.plcc, blind.rmse, blind.outlier_ratio) == (
        pytest.approx(0, abs=1e-3),
        pytest.approx(2**0.5),
        pytest.approx(0.4),  # the middle is one level or less from three of five
    )
