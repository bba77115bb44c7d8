"""Signals outside a training's steps: nothing is lost, nothing waits, and the handlers are put back."""

import os
import signal
import subprocess
import sys

import pytest

from twostage.training.interrupts import SafePoint, StopAtOnce, Stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_behind_the_last_safe_point_is_passed_on(number: int) -> None:
    """It came while the last state was saved: a `train` of several models must not go on with the next."""
    before = signal.getsignal(number)
    if before == signal.SIG_IGN:
        pytest.skip("the signal is ignored here, as under nohup")
    with pytest.raises(Stopped) as caught, StopAtOnce(keep=False), SafePoint():
        os.kill(os.getpid(), number)
    assert caught.value.number == number
    assert signal.getsignal(number) == before


def test_an_error_inside_is_not_replaced_by_the_signal() -> None:
    def fail() -> None:
        with StopAtOnce(keep=False), SafePoint():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        fail()


@pytest.mark.parametrize("keep", [True, False])
def test_one_more_signal_ends_the_process_at_once(keep: bool) -> None:
    code = (
        "import os, signal\n"
        "from twostage.training.interrupts import StopAtOnce\n"
        "try:\n"
        f"    with StopAtOnce(keep={keep}):\n"
        "        try:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        finally:\n"
        f"            {keep} or os.kill(os.getpid(), signal.SIGINT)\n"
        "finally:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_the_caller_has_ignored_stays_so(number: int) -> None:
    """`nohup` ignores SIGHUP and starts the command."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopAtOnce(keep=False), SafePoint() as safe_point:
            os.kill(os.getpid(), number)
        assert safe_point.received is None
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_background_job_of_a_shell_can_be_interrupted() -> None:
    """Shells start it with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(Stopped), StopAtOnce(keep=False):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
