"""Which form of a norm is cheaper: the one place where rules are chosen.

Costs count multiplications. A number that is only added or copied costs a processor about as much as five of the multiplications
inside a matrix product, because it comes from memory each time.
"""

from __future__ import annotations

ELEMENTWISE = 5

CALLS = 20_000_000
"""What the Gram form's additional two dozen calls of the library cost, however little there is to do: some 0.2 ms."""


def gram_is_cheaper(samples: int, direct: int, gram: int, elementwise: int) -> bool:
    """Compare multiplications of the two forms for each of the samples; ``elementwise`` numbers of the Gram form are touched
    outside matrix products."""
    return CALLS + samples * (gram + ELEMENTWISE * elementwise) < samples * direct
