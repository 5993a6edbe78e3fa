import signal

import pytest

from divco_tf.errors import Preempted
from divco_tf.runtime.interrupts import Interrupts


def test_an_interrupt_is_raised_where_it_is_safe_and_a_second_one_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupts() as interrupts:
            interrupts.check()
            signal.raise_signal(signal.SIGINT)
            for terminations in (True, False):
                with pytest.raises(KeyboardInterrupt):
                    interrupts.check(terminations=terminations)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_termination_is_raised_where_it_is_safe():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with Interrupts() as interrupts:
            assert not interrupts.terminated
            interrupts.check()
            signal.raise_signal(signal.SIGTERM)
            assert interrupts.terminated
            interrupts.check(terminations=False)
            with pytest.raises(Preempted):
                interrupts.check()
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a second one acts at once
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_program_that_handles_interrupts_itself_keeps_its_handler():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            interrupts.check()
    finally:
        signal.signal(signal.SIGINT, before)
