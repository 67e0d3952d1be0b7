"""THE operator table: one row an operator.  Nothing else in effspec knows an operator.

Adding an operator is adding a row here and a row in each backend; `tests/test_ops.py` fails where one is missing.
"""

from __future__ import annotations

from effspec.ops import arithmetic, elementwise, pooling, reduction, shape, weights
from effspec.ops.base import Op

OPS: dict[str, Op] = {
    row.name: row
    for row in (
        *weights.ROWS,
        *elementwise.ROWS,
        *arithmetic.ROWS,
        *pooling.ROWS,
        *reduction.ROWS,
        *shape.ROWS,
    )
}
