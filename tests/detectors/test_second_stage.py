"""The second stage H, the Purview detector and its controls."""

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tutorial_lib.detectors import (
    ActivationNormsControl,
    LogitsControl,
    MahalanobisEnsemble,
    NotFittedError,
    PenultimateControl,
    Purview,
    log_squared_norms,
)
from tutorial_lib.detectors.second_stage import log_odds
from tutorial_lib.metrics import auroc


def features_of(detector, images):
    return detector.features(detector.observe(images))


def test_any_classifier_can_be_put_in(model, known, strange):
    for second_stage in (
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(20, random_state=0),
    ):
        detector = Purview(model, second_stage).fit(known, strange[0])
        assert auroc(detector.predict(known), detector.predict(strange[1])) > 0.9


def test_the_readers_estimator_is_cloned(model, known, strange):
    mine = LogisticRegression()
    Purview(model, mine).fit(known, strange[0])
    assert not hasattr(mine, "coef_")


def test_what_cannot_be_a_second_stage_is_refused(model):
    with pytest.raises(TypeError, match="LinearRegression has neither"):
        Purview(model, LinearRegression())


def test_purview_is_h_on_the_log_gradient_norms(model, known, strange):
    """The same pipeline put together by hand, with equally many images of both kinds."""
    n = len(strange[0])
    few = known.subset(range(n))
    stage = make_pipeline(StandardScaler(), LogisticRegression())
    detector = Purview(model, stage).fit(few, strange[0])
    x = np.concatenate([log_squared_norms(model, data.float(), "ones", "bce") for data in (few, strange[0])])
    by_hand = stage.fit(x, np.repeat([0, 1], n)).decision_function(
        log_squared_norms(model, strange[1].float(), "ones", "bce").numpy()
    )
    np.testing.assert_allclose(detector.predict(strange[1]), by_hand, rtol=1e-2, atol=1e-2)


def test_controls_look_at_the_forward_pass(model, known):
    images = known.float()
    with torch.no_grad():
        torch.testing.assert_close(features_of(LogitsControl(model), known).float(), model(images))
        torch.testing.assert_close(features_of(PenultimateControl(model), known).float(), model.features(images))
        first = model.backbone[0](model.normalize(images)).square().sum((1, 2, 3)).log()
        norms = features_of(ActivationNormsControl(model), known).float()
    torch.testing.assert_close(norms[:, 0], first)
    assert norms.shape[1] == 5  # two convolutions, three linear layers


def test_log_odds_do_not_saturate():
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.normal(size=(50, 1)), generator.normal(6, size=(50, 1))])
    classifier = LogisticRegression(C=1e4).fit(x, np.repeat([0, 1], 50))
    far = np.linspace(-50, 50, 101)[:, None]
    assert (np.diff(log_odds(classifier, far)) > 0).all()
    forest = RandomForestClassifier(10, random_state=0).fit(x, np.repeat([0, 1], 50))
    assert np.isfinite(log_odds(forest, far)).all()  # probabilities of exactly 0 and 1


def test_log_odds_are_the_classifiers_own():
    x = np.random.default_rng(0).normal(size=(40, 2))
    forest = RandomForestClassifier(50, max_depth=2, random_state=0).fit(x, np.repeat([0, 1], 20))
    p = forest.predict_proba(x)
    np.testing.assert_allclose(log_odds(forest, x), np.log(p[:, 1] / p[:, 0]), rtol=1e-9)


def test_both_kinds_weigh_the_same(model, known, strange):
    """With ten times more known images, a classifier that only knows the shares still says even odds."""
    detector = LogitsControl(model, DummyClassifier(strategy="prior")).fit(known, strange[0].subset(range(20)))
    np.testing.assert_allclose(detector.predict(known), 0, atol=0.1)


def test_features_once_second_stages_many_times(model, study, known, strange):
    for detector in (Purview(model), PenultimateControl(model)):
        whole = type(detector)(model).fit(known, strange[0]).predict(strange[1])
        parts = detector.fit_from(detector.observe(known), detector.observe(strange[0]))
        np.testing.assert_array_equal(parts.predict_from(detector.observe(strange[1])), whole)
    for epsilon in (0.0, 0.002):
        ensemble = MahalanobisEnsemble(model, epsilon).fit_reference(study.train)
        ensemble.fit_from(ensemble.observe(known), ensemble.observe(strange[0]))
        whole = MahalanobisEnsemble(model, epsilon).fit(known, strange[0], study.train).predict(strange[1])
        np.testing.assert_array_equal(ensemble.predict_from(ensemble.observe(strange[1])), whole)


def test_scores_without_a_fit_are_refused(model, known):
    with pytest.raises(NotFittedError, match=r"call fit\(known, challenging\)"):
        Purview(model).predict_from(torch.zeros(2, 10))


def test_seeds_differ(model, known, strange):
    one, other = (PenultimateControl(model, seed=seed).fit(known, strange[0]).predict(known) for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_halves_of_the_network_are_the_halves_of_the_features(model, known):
    every, first, second = (features_of(Purview(model, part=part), known) for part in ("all", "first", "second"))
    assert first.shape[1] == every.shape[1] // 2 == second.shape[1]
    np.testing.assert_array_equal(every, torch.cat([first, second], dim=1))
    with pytest.raises(ValueError, match="'all', 'first', 'second', got 'last'"):
        Purview(model, part="last")


def test_the_default_stage_stops_when_it_learns_no_more(model, known, strange):
    """What its docstring says: at most a hundred epochs, fewer when ten in a row gain less than 1e-4."""
    stage = PenultimateControl(model).fit(known, strange[0])._h[-1]
    assert (stage.max_iter, stage.n_iter_no_change, stage.tol) == (100, 10, 1e-4)
    assert 10 < stage.n_iter_ <= 100
    if stage.n_iter_ < 100:
        assert min(stage.loss_curve_[:-10]) - min(stage.loss_curve_[-10:]) < 10 * stage.tol
