import math

import pytest
import torch

from synthgrad.data import answer_bits, copy_task, repeat_copy_task
from synthgrad.errors import ConfigError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_copy_by_hand():
    task = copy_task(1, length=2, num_bits=2, generator=seeded())
    (a, b), (c, d) = task.inputs[:2, 0, :2].tolist()
    assert task.inputs[:, 0].tolist() == [[a, b, 0], [c, d, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert task.targets[:, 0].tolist() == [[0, 0], [0, 0], [0, 0], [a, b], [c, d]]
    assert task.mask.tolist() == [False, False, False, True, True]
    assert (task.num_steps, task.num_counted) == (5, 2)


def test_repeat_copy_by_hand():
    task = repeat_copy_task(1, length=2, repeats=3, num_bits=1, generator=seeded())
    a, b = task.inputs[1:3, 0, 0].tolist()
    question = [[0, 1, 0], [a, 0, 0], [b, 0, 0], [0, 0, 0.3]]
    torch.testing.assert_close(task.inputs[:, 0], torch.tensor(question + [[0, 0, 0]] * 7))
    answer = [[a, 0], [b, 0]] * 3 + [[0, 1]]
    assert task.targets[:, 0].tolist() == [[0, 0]] * 4 + answer
    assert task.mask.tolist() == [False] * 4 + [True] * 7


def test_patterns_are_random_bits_of_every_row_and_follow_from_the_seed():
    task = copy_task(100, length=10, num_bits=8, generator=seeded())
    patterns = task.inputs[:10, :, :8]
    assert patterns.unique().tolist() == [0, 1]
    # 8,000 fair bits: 0.03 is more than five standard deviations.
    assert patterns.mean().item() == pytest.approx(0.5, abs=0.03)
    assert len({tuple(row.flatten().tolist()) for row in patterns.unbind(1)}) == 100
    again = copy_task(100, length=10, num_bits=8, generator=seeded())
    other = copy_task(100, length=10, num_bits=8, generator=seeded(1))
    assert torch.equal(task.inputs, again.inputs)
    assert not torch.equal(task.inputs, other.inputs)


def test_batch_moves_whole_to_another_device():
    moved = copy_task(2, length=1, num_bits=1, generator=seeded()).to("meta")
    assert {t.device.type for t in (moved.inputs, moved.targets, moved.mask)} == {"meta"}


def test_error_is_in_bits_of_the_counted_outputs():
    task = repeat_copy_task(3, length=2, repeats=2, num_bits=2, generator=seeded())
    right = 2 * task.targets - 1
    probability = 0.75
    logits = right * math.log(probability / (1 - probability))
    # What is said where no answer is asked for must not matter.
    logits[~task.mask] = 100.0
    bits = answer_bits(logits, task.targets, task.mask)
    # Float32 logits and sums of 30 terms.
    assert bits.item() == pytest.approx(-math.log2(probability), rel=1e-6)


def test_errors_of_chunks_add_up_to_the_error_of_the_sequence():
    task = repeat_copy_task(3, length=3, repeats=2, num_bits=2, generator=seeded())
    logits = torch.randn(task.targets.shape, generator=seeded(1), dtype=torch.float64)
    logits.requires_grad_()
    targets = task.targets.double()
    whole = answer_bits(logits, targets, task.mask)
    pieces = zip(logits.split(4), targets.split(4), task.mask.split(4), strict=True)
    parts = [answer_bits(*piece, num_counted=task.num_counted) for piece in pieces]
    assert parts[0].item() == 0
    parts[0].backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    # The same float64 sum in another order.
    torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ["batch_size", "length", "repeats", "num_bits"])
def test_sizes_below_one_are_refused(name):
    sizes = {"batch_size": 2, "length": 2, "repeats": 2, "num_bits": 2} | {name: 0}
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        repeat_copy_task(**sizes, generator=seeded())
    del sizes["repeats"]
    if name != "repeats":
        with pytest.raises(ConfigError, match=f"{name} is 0"):
            copy_task(**sizes, generator=seeded())


def test_error_of_foreign_shapes_is_refused():
    task = copy_task(2, length=1, num_bits=1, generator=seeded())
    with pytest.raises(ConfigError, match=r"logits have the shape \(3, 2, 2\)"):
        answer_bits(torch.zeros(3, 2, 2), task.targets, task.mask)
    with pytest.raises(ConfigError, match=r"the mask \(2,\)"):
        answer_bits(task.targets, task.targets, task.mask[1:])


def test_ahead_tells_the_answers_to_come_and_nothing_else():
    task = repeat_copy_task(2, 2, 1, 1, torch.Generator().manual_seed(0))
    first_answer = task.num_steps - task.num_counted
    told = task.ahead(first_answer - 1, 3).unflatten(1, (3, 3))
    assert torch.equal(told[:, 0], torch.zeros(2, 3)), "nothing is asked yet"
    assert torch.equal(told[:, 1:, :2], (2 * task.targets[first_answer:][:2] - 1).transpose(0, 1))
    assert (told[:, 1:, 2] == 1).all()
    beyond = task.ahead(task.num_steps - 1, 4).unflatten(1, (4, 3))
    assert beyond[:, 0].abs().min() == 1
    assert not beyond[:, 1:].any()
    assert not task.ahead(task.num_steps + 5, 2).any()
