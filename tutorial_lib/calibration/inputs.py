"""What calibration is measured on: class probabilities with labels, or confidence with right and wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

SUM_TOLERANCE = 1e-3
"""How far a row of probabilities may be from one: half-precision softmax of a thousand classes stays within it."""

BFLOAT16_TOLERANCE = 2e-2
"""The same for ``bfloat16``, which has three decimal digits less: each probability is off by up to a 256th of itself, and
so is, at most, their sum."""


def _tolerance(array: NDArray[np.floating]) -> float:
    """NumPy has no ``bfloat16``; what was one is a ``float32`` whose last 16 bits are empty."""
    was_bfloat16 = array.dtype == np.float32 and not (np.ascontiguousarray(array).view(np.uint32) & 0xFFFF).any()
    return BFLOAT16_TOLERANCE if was_bfloat16 else SUM_TOLERANCE


def as_array(values: Any) -> NDArray[Any]:
    """A NumPy array on the CPU, in the precision of the input; ``bfloat16`` becomes ``float32`` (NumPy has none)."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def _numbers_in_unit_interval(values: Any, name: str) -> NDArray[np.floating]:
    array = as_array(values)
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must be numbers, got {array.dtype}")
    if array.size == 0:
        raise ValueError(f"{name} is empty; calibration needs at least one prediction")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has {int((~np.isfinite(array)).sum())} values that are NaN or infinite")
    low, high, tolerance = float(array.min()), float(array.max()), _tolerance(array)
    if low < -tolerance or high > 1 + tolerance:
        raise ValueError(f"{name} must lie in [0, 1], got {low:.4g} to {high:.4g}; logits need a softmax first")
    # averages of probabilities that float32 has rounded come to 1.0000001
    return array.clip(0, 1) if low < 0 or high > 1 else array


def check_labels(labels: Any, count: int, num_classes: int) -> NDArray[np.int64]:
    """Labels (N,) as int64, refused by name unless they are ``count`` integers from 0 to ``num_classes`` - 1."""
    array = as_array(labels)
    if array.shape != (count,):
        raise ValueError(f"labels must have shape ({count},), one for each prediction, got {array.shape}")
    if array.dtype.kind not in "iub" or (array.dtype.kind == "b" and num_classes != 2):
        hint = "; booleans are labels of two classes only" if array.dtype.kind == "b" else ""
        raise TypeError(f"labels must be integers, got {array.dtype}{hint}")
    if array.min() < 0 or array.max() >= num_classes:
        raise ValueError(
            f"labels must lie in 0..{num_classes - 1} for {num_classes} classes, got {array.min()} to {array.max()}"
        )
    return array.astype(np.int64)


def check_rows(probabilities: Any) -> NDArray[np.floating]:
    """Probabilities (N, K) in their own precision, or one error that says what is wrong with them."""
    array = _numbers_in_unit_interval(probabilities, "probabilities")
    if array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(f"probabilities must have shape (N, K) with at least two classes, got {array.shape}")
    sums = array.sum(axis=1, dtype=np.float64)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > _tolerance(array):
        raise ValueError(
            f"each row of probabilities must sum to 1, row {worst} sums to {sums[worst]:.6g}; logits need a softmax"
        )
    return array


def check_probabilities(probabilities: Any, labels: Any) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Probabilities (N, K) in their own precision and labels (N,) as int64, or one error that says what is wrong."""
    array = check_rows(probabilities)
    return array, check_labels(labels, *array.shape)


def top_confidence(predictions: Any) -> NDArray[np.floating]:
    """Confidence (N,): the largest probability of each row (N, K), or ``predictions`` (N,) itself."""
    if as_array(predictions).ndim == 2:
        return check_rows(predictions).max(axis=1)
    confidence = _numbers_in_unit_interval(predictions, "confidence")
    if confidence.ndim != 1:
        raise ValueError(f"give probabilities (N, K) or confidence (N,), got an array of shape {confidence.shape}")
    return confidence


def confidence_and_correct(predictions: Any, outcomes: Any) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Confidence (N,) in [0, 1] and whether each prediction was right (N,).

    Args:
        predictions: probabilities (N, K), rows summing to one; or confidence (N,) already.
        outcomes: for probabilities, labels (N,), integers from 0 to K - 1; for confidence, right or wrong (N,),
            booleans or zeros and ones.

    Returns:
        Confidence, in the floating-point precision of ``predictions``, and correctness. From probabilities they are the
        largest probability and whether its class (the first one, where several tie) is the label.

    Raises:
        ValueError, TypeError: empty, not finite, outside [0, 1], rows that do not sum to one, labels out of range,
            shapes that do not match.
    """
    if as_array(predictions).ndim == 2:
        probabilities, labels = check_probabilities(predictions, outcomes)
        return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    confidence = top_confidence(predictions)
    correct = as_array(outcomes)
    if correct.shape != confidence.shape:
        raise ValueError(f"confidence has shape {confidence.shape}, right or wrong {correct.shape}; they must match")
    if correct.dtype.kind not in "biuf" or not np.isin(correct, (0, 1)).all():
        raise ValueError(
            "beside confidence (N,) goes whether each prediction was right, as booleans or zeros and ones; "
            "labels go beside probabilities (N, K)"
        )
    return confidence, correct.astype(bool)
