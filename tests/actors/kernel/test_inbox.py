import sys
import threading

import pykka
import pytest
from pykka._envelope import Envelope

from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.errors import InboxClosedError, MailboxFullError
from callboard.actors.kernel.inbox import FULL, STOPPED, ClosingInbox
from callboard.actors.kernel.messages import Stop


def test_the_system_lane_goes_first_and_each_lane_keeps_its_order():
    inbox = ClosingInbox()
    order = [1, Stop(), 2, 3]
    for message in order:
        assert inbox.deliver(Envelope(message))
    assert [inbox.get().message for _ in order] == [Stop(), 1, 2, 3]
    assert inbox.empty()


def test_after_close_mail_is_refused_and_the_reader_is_woken():
    refused = []
    inbox = ClosingInbox()
    inbox.refuse = lambda envelope, why: refused.append((envelope.message, why))
    inbox.deliver(Envelope(1))
    inbox.deliver(Envelope(Stop()))
    assert [e.message for e in inbox.close()] == [Stop(), 1]
    assert not inbox.close()
    assert not inbox.deliver(Envelope(2))
    assert refused == [(2, STOPPED)]
    with pytest.raises(InboxClosedError):
        inbox.get()
    assert inbox.closed


def test_a_reader_that_waits_is_woken_by_close():
    inbox = ClosingInbox()
    ended = []

    def read():
        try:
            inbox.get()
        except InboxClosedError:
            ended.append(True)

    reader = threading.Thread(target=read)
    reader.start()
    inbox.close()
    reader.join(5)
    assert ended == [True]


def test_the_tripwire_refuses_user_mail_but_never_a_stop():
    refused = []
    inbox = ClosingInbox(max_mail=2)
    inbox.refuse = lambda envelope, why: refused.append((envelope.message, why))
    assert [inbox.deliver(Envelope(n)) for n in range(3)] == [True, True, False]
    assert inbox.deliver(Envelope(Stop()))
    assert refused == [(2, FULL)]
    assert inbox.waiting == 2


def test_a_full_mailbox_is_loud_refuses_asks_clearly_and_takes_mail_again(system, caplog):
    class Small(Actor):
        max_mail = 1
        gate = threading.Event()
        entered = threading.Event()

        def receive(self, message):
            self.entered.set()
            assert self.gate.wait(5)

    reference = system.start_actor("small", lambda: Small(system))
    assert system.tell("small", 1)
    assert Small.entered.wait(5)
    assert system.tell("small", 2)
    assert not system.tell("small", 3)
    with pytest.raises(MailboxFullError, match="'small' refused int: 1 messages wait"):
        reference.ask(4, timeout=5)
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    Small.gate.set()
    assert reference.stop(timeout=5)


def test_no_ask_is_lost_when_it_races_a_stop(system):
    """Pykka's own inbox loses about 7 in 10,000 here (two senders, switch interval 10 us); each would wait for ever."""

    class Echo(Actor):
        def receive(self, message):
            pass

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        asked = []
        for turn in range(150):
            reference = system.start_actor("echo", lambda: Echo(system))
            go = threading.Barrier(3)

            def send(reference=reference, go=go):
                go.wait(5)
                asked.extend(reference.ask(n, block=False) for n in range(40))

            senders = [threading.Thread(target=send) for _ in range(2)]
            for sender in senders:
                sender.start()
            go.wait(5)
            assert reference.stop(timeout=5), turn
            for sender in senders:
                sender.join(5)
            assert system.wait_ended("echo", 5)
    finally:
        sys.setswitchinterval(before)
    answered = died = 0
    for future in asked:
        try:
            assert future.get(timeout=0.0) is None
            answered += 1
        except pykka.ActorDeadError:
            died += 1
    assert answered + died == 150 * 80
