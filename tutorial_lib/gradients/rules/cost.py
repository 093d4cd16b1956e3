"""Which form of a norm is cheaper: the one place where rules are chosen.

Costs count multiplications. A number that is only added or copied costs a processor about as much as five of the multiplications
inside a matrix product, because it comes from memory each time.
"""

from __future__ import annotations

ELEMENTWISE = 5


def gram_is_cheaper(direct: int, gram: int, elementwise: int) -> bool:
    """Compare multiplications of the two forms; ``elementwise`` numbers of the Gram form are touched outside matrix products."""
    return gram + ELEMENTWISE * elementwise < direct
