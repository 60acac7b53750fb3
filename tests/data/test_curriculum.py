import pytest
import torch

from synthgrad.data import Curriculum, copy_task, modelled_length, repeat_copy_task
from synthgrad.errors import ConfigError


def test_copy_grows_by_one_pattern():
    curriculum = Curriculum("copy")
    seen = []
    for _ in range(3):
        seen.append((curriculum.length, curriculum.repeats, curriculum.modelled))
        assert curriculum.observe(0.1)
    assert seen == [(1, 1, 0), (2, 1, 1), (3, 1, 2)]


def test_repeat_copy_grows_in_turn_and_meets_every_number_of_the_papers_table():
    curriculum = Curriculum("repeat-copy")
    seen, modelled = [], []
    for _ in range(14):
        seen.append((curriculum.length, curriculum.repeats))
        curriculum.observe(0.0)
        modelled.append(curriculum.modelled)
    assert seen[:5] == [(1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]
    assert modelled == [5, 7, 9, 12, 15, 19, 23, 28, 33, 39, 45, 52, 59, 67]
    assert set(modelled) >= {7, 5, 19, 23, 39, 33, 59, 67}


def test_counted_length_of_repeat_copy_is_the_steps_of_its_sequences():
    task = repeat_copy_task(1, 4, 3, 2, torch.Generator())
    assert modelled_length("repeat-copy", 4, 3) == task.num_steps


@pytest.mark.parametrize("bits", [0.15, 0.2, float("nan"), float("inf")])
def test_error_that_is_not_below_the_threshold_changes_nothing(bits):
    curriculum = Curriculum("copy")
    assert not curriculum.observe(bits)
    assert (curriculum.length, curriculum.modelled) == (1, 0)


def test_threshold_is_the_users():
    assert Curriculum("copy", threshold_bits=0.3).observe(0.2)
    assert not Curriculum("copy", threshold_bits=0.01).observe(0.02)


@pytest.mark.parametrize("task", ["copy", "repeat-copy"])
def test_batches_are_of_the_present_length(task):
    curriculum = Curriculum(task)
    for _ in range(4):
        curriculum.observe(0)
    drawn = curriculum.sample(2, 3, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    expected = (
        copy_task(2, 5, 3, generator) if task == "copy" else repeat_copy_task(2, 3, 3, 3, generator)
    )
    assert torch.equal(drawn.inputs, expected.inputs)


@pytest.mark.parametrize("stop", range(4))
def test_resumed_curriculum_equals_the_uninterrupted_one(stop):
    errors = [0.1, 0.9, 0.1, 0.1]
    whole, first, resumed = (Curriculum("repeat-copy") for _ in range(3))
    for bits in errors:
        whole.observe(bits)
    for bits in errors[:stop]:
        first.observe(bits)
    resumed.load_state_dict(first.state_dict())
    for bits in errors[stop:]:
        resumed.observe(bits)
    assert resumed.state_dict() == whole.state_dict()


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="no task 'sort'"):
        Curriculum("sort")
    with pytest.raises(ConfigError, match="threshold_bits is 0"):
        Curriculum("copy", threshold_bits=0)
    with pytest.raises(ConfigError, match="of 'copy', this one is of 'repeat-copy'"):
        Curriculum("repeat-copy").load_state_dict(Curriculum("copy").state_dict())
