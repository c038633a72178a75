"""An attempt costs the same whatever waits, or has ended, beside it: by operations, which no busy machine changes.

``python -m benchmarks growth`` measures the same at 100,000, with times.
"""

import pytest

from benchmarks import growth

PASSES = 8
FEW, MANY = 100, 1000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shape", growth.SHAPES)
def test_a_pass_costs_as_much_beside_a_thousand_as_beside_a_hundred(tmp_path, shape):
    costs = {}
    for count in (FEW, MANY):
        root = tmp_path / str(count)
        growth.SHAPES[shape](root, count)
        costs[count] = _of_single_attempts(root, tmp_path, count)
    few, many = ({f: growth.median(costs[n], f) for f in ("files", "listed", "moved", "calls")} for n in (FEW, MANY))
    assert many["files"] <= few["files"] + 8
    assert many["moved"] <= few["moved"] * 1.1 + 500
    # Names and calls: a chunk of the queue holds up to 256 tickets, and a listing of chunks one in 256.
    assert many["listed"] <= few["listed"] + 260
    assert many["calls"] <= few["calls"] * 1.1 + 260


def _of_single_attempts(root, tmp_path, count):
    """Costs of passes that settled one attempt and launched one; on a busy machine many settle none, or several."""
    found = []
    for again in range(5):
        found += growth.run(root, tmp_path / f"{count}.{again}.passes", PASSES)
        if len(found) >= PASSES - 3:
            return found
    raise AssertionError(f"only {len(found)} passes were those of one attempt")
