"""bfloat16 only where there are units for it."""

from dataclasses import replace

import pytest
import torch

from tutorial_lib.experiments import gradcon_class, gradcon_condition
from tutorial_lib.models.autoencoder import build_autoencoder
from tutorial_lib.studies import STUDIES, load_study
from tutorial_lib.training import autoencoder, precision
from tutorial_lib.training.autoencoder import AutoencoderConfig, train_autoencoder
from tutorial_lib.training.classifier import TrainingConfig

CPU = torch.device("cpu")


@pytest.fixture
def processor(monkeypatch):
    """A processor with these units."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)

    def pretend(amx=False, avx512_bf16=False):
        for name, there in (("_is_amx_tile_supported", amx), ("_is_avx512_bf16_supported", avx512_bf16)):
            monkeypatch.setattr(torch.cpu, name, lambda there=there: there, raising=False)

    return pretend


@pytest.mark.parametrize(("amx", "avx512_bf16"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_processor_has_units_or_not(processor, amx, avx512_bf16):
    processor(amx, avx512_bf16)
    expected = amx or avx512_bf16
    assert precision.has_bfloat16_units(CPU) == expected
    assert precision.resolved("auto", CPU) == ("bfloat16" if expected else "float32")
    with precision.autocast("auto", CPU):
        assert torch.is_autocast_enabled("cpu") == expected
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if expected else torch.float32)


def test_a_torch_without_the_probes_means_float32(monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not precision.has_bfloat16_units(CPU)


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_units_that_are_switched_off_do_not_count(processor, monkeypatch, name):
    processor(amx=True, avx512_bf16=True)
    monkeypatch.setenv(name, "AVX2")
    assert not precision.has_bfloat16_units(CPU)


@pytest.mark.parametrize("there", [True, False])
def test_an_accelerator_that_emulates_has_no_units(monkeypatch, there):
    """A T4 says that it supports bfloat16 when asked without the argument: it emulates it."""
    monkeypatch.setattr(torch.cuda, "device", lambda device: pytest.MonkeyPatch.context())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or there)
    assert precision.has_bfloat16_units(torch.device("cuda:0")) == there


@pytest.mark.parametrize("kind", ["mps", "xpu", "hpu", "meta", "privateuseone"])
def test_an_unknown_device_means_float32(processor, kind):
    processor(amx=True, avx512_bf16=True)
    assert precision.resolved("auto", torch.device(kind)) == "float32"


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_who_asks_by_name_gets_it(processor, asked):
    processor()
    assert precision.resolved(asked, CPU) == asked
    processor(amx=True)
    assert precision.resolved(asked, CPU) == asked


def test_no_recipe_forces_bfloat16():
    recipes = [*gradcon_class.RECIPES.values(), *gradcon_condition.RECIPES.values()]
    assert {recipe.precision for recipe in recipes} <= {"auto", "float32"}
    for study in map(load_study, STUDIES):
        for settings in study.recipes.values():
            assert TrainingConfig(**settings).precision in ("auto", "float32")


def test_an_autoencoder_on_auto_is_trained_as_if_asked_by_name(processor, monkeypatch):
    images = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    used = []
    step = autoencoder.training_step
    monkeypatch.setattr(autoencoder, "training_step", lambda *args: used.append(args[-1]) or step(*args))
    for there, expected in ((False, "float32"), (True, "bfloat16")):
        processor(avx512_bf16=there)
        weights = []
        for asked in ("auto", expected):
            torch.manual_seed(0)
            model = build_autoencoder("cae", (1, 8, 8), width=0.1)
            train_autoencoder(model, images, config=AutoencoderConfig(epochs=1, precision=asked), progress=False)
            weights.append(torch.cat([p.flatten() for p in model.parameters()]))
        assert torch.equal(*weights)
        assert set(used) == {expected}
        used.clear()


def test_another_word_is_refused():
    for config in (AutoencoderConfig(), TrainingConfig()):
        with pytest.raises(ValueError, match="precision must be one of auto, float32, bfloat16, got 'half'"):
            replace(config, precision="half")
