from __future__ import annotations

import numpy as np
import pytest

from lamina.errors import RecordingError
from lamina.recording import log_then_linear
from lamina.recording.schedules import schedule_of


def due(every, last: int) -> list[int]:
    schedule = schedule_of(every)
    return [step for step in range(last + 1) if schedule.due(step)]


def test_a_number_is_its_multiples_and_zero():
    assert due(3, 10) == [0, 3, 6, 9]
    assert due(1, 3) == [0, 1, 2, 3]


def test_log_then_linear_doubles_and_then_counts():
    assert due(log_then_linear(512, 1000), 3000) == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 3000]


def test_log_then_linear_starts_counting_where_the_powers_end():
    assert due(log_then_linear(8, 3), 16) == [0, 1, 2, 4, 8, 9, 12, 15]
    assert due(log_then_linear(100, 100), 300) == [0, 1, 2, 4, 8, 16, 32, 64, 100, 200, 300]
    assert due(log_then_linear(1, 5), 10) == [0, 1, 5, 10]


@pytest.mark.parametrize("steps", [{1, 4}, [1, 4], (1, 4), range(1, 5, 3), np.array([1, 4])])
def test_a_container_is_its_steps(steps):
    assert due(steps, 6) == [1, 4]


def test_a_function_and_an_object_with_due_are_asked():
    assert due(lambda step: np.bool_(step > 4), 6) == [5, 6]

    class Odd:
        def due(self, step: int) -> bool:
            return step % 2 == 1

    assert due(Odd(), 4) == [1, 3]


@pytest.mark.parametrize("every", [0, -1, True, 1.5, "100", None, object()])
def test_what_is_no_schedule_raises(every):
    with pytest.raises(RecordingError, match="is no schedule"):
        schedule_of(every)


@pytest.mark.parametrize(("until", "every"), [(0, 1), (1, 0), (1.5, 1), (1, True)])
def test_log_then_linear_needs_whole_numbers(until, every):
    with pytest.raises(RecordingError, match="log_then_linear"):
        log_then_linear(until, every)
