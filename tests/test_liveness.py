"""Signs of progress, and the watch that misses them."""

import subprocess
import sys
import threading

import pytest

from raygan import liveness
from raygan.gan.recorded import Recorded


@pytest.fixture
def watch():
    """A watch that allows 10 s, and 60 s before the first sign; nothing runs."""
    made = liveness.Watch(10, lambda: None, first=60)
    made._thread = threading.Thread(target=lambda: None)
    with made:
        yield made


def test_without_signs_it_stalls(watch):
    liveness.progress()
    assert not watch.looks(100)
    assert not watch.looks(5)
    assert not watch.looks(4)
    assert watch.looks(1)


def test_each_sign_starts_the_time_again(watch):
    for _ in range(10):
        liveness.progress()
        assert not watch.looks(9)
        assert not watch.looks(9)


def test_the_first_sign_may_take_longer(watch):
    assert not watch.looks(59)
    assert watch.looks(1)


def test_a_first_time_is_never_below_the_other():
    assert liveness.Watch(1000, lambda: None)._first == 1000


def test_waiting_for_something_else_does_not_count(watch):
    liveness.progress()
    with liveness.waiting():
        assert not watch.looks(1000)
    assert not watch.looks(9)  # the time starts again at the block's end
    assert not watch.looks(9)
    assert watch.looks(1)


def test_the_first_sign_may_take_longer_after_waiting_for_the_images(watch):
    with liveness.waiting():
        assert not watch.looks(1000)
    for _ in range(2):
        with liveness.waiting():  # ends between two looks
            pass
        assert not watch.looks(1)
        assert not watch.looks(59)
    assert watch.looks(1)


def test_what_is_done_with_an_item_does_not_count(watch):
    liveness.progress()
    items = iter(liveness.uncounted(["a", "b"]))
    for expected in ("a", "b"):
        assert next(items) == expected
        assert not watch.looks(1000)
    assert next(items, None) is None
    watch.looks(1)
    assert watch.looks(10)


def test_an_item_that_is_the_last_to_be_taken_leaves_no_trace(watch):
    for _ in liveness.uncounted(["a", "b"]):
        break
    liveness.progress()
    watch.looks(1)
    assert watch.looks(10)


def test_each_iteration_and_each_step_of_a_reconstruction_is_a_sign(watch):
    done = []
    repeated = Recorded(lambda: done.append(1), on_gpu=False)
    for _ in range(3):
        watch.looks(1)
        assert watch._still == 1
        repeated()
        assert not watch.looks(1)
        assert watch._still == 0
    assert done == [1, 1, 1]


@pytest.mark.cluster  # a process of its own
def test_a_thread_says_so_while_the_process_hangs():
    program = (
        "import os, time\n"
        "from raygan import liveness\n"
        "with liveness.Watch(1, lambda: os._exit(7)):\n"
        "    liveness.progress()\n"
        "    time.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=50).returncode == 7
