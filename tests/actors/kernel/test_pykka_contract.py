"""What the kernel takes for granted of Pykka's private parts. If one of these fails, read actors/kernel/actor.py before anything else."""

import inspect
import queue
import threading

import pykka
import pytest
from pykka._envelope import Envelope
from pykka._ref import ActorRef
from pykka.messages import _ActorStop


class Recorder:
    """An inbox of the three methods of Pykka's protocol."""

    def __init__(self):
        self.seen = []

    def put(self, envelope):
        self.seen.append(envelope)

    def get(self):
        raise AssertionError("not started")

    def empty(self):
        return not self.seen


class Custom(pykka.ThreadingActor):
    started = None

    @staticmethod
    def _create_actor_inbox():
        return Recorder()

    def _start_actor_loop(self):
        type(self).started = self


def test_a_reference_sends_through_the_inbox_made_by_create_actor_inbox():
    actor = Custom()
    actor.actor_ref.tell("hello")
    (envelope,) = actor.actor_inbox.seen
    assert type(envelope) is Envelope
    assert (envelope.message, envelope.reply_to) == ("hello", None)


def test_an_ask_puts_an_envelope_with_a_future_and_stop_is_an_ask_of_actor_stop():
    actor = Custom()
    future = actor.actor_ref.ask("question", block=False)
    actor.actor_ref.stop(block=False)
    question, stop = actor.actor_inbox.seen
    assert question.reply_to is future
    assert isinstance(future, pykka.ThreadingFuture)
    assert type(stop.message) is _ActorStop
    assert stop.reply_to is not None


def test_actor_stopped_is_what_makes_a_reference_dead():
    actor = Custom()
    assert isinstance(actor.actor_stopped, threading.Event)
    assert actor.actor_ref.is_alive()
    actor.actor_stopped.set()
    with pytest.raises(pykka.ActorDeadError):
        actor.actor_ref.tell("late")
    with pytest.raises(pykka.ActorDeadError):
        actor.actor_ref.ask("late", timeout=1)
    assert actor.actor_ref.stop(timeout=1) is False


def test_a_stop_that_was_answered_with_none_counts_as_stopped():
    actor = Custom()
    future = actor.actor_ref.stop(block=False)
    actor.actor_inbox.seen[0].reply_to.set(None)
    assert future.get(timeout=1) is True


def test_a_future_takes_one_answer_and_says_full_to_the_second():
    future = pykka.ThreadingFuture()
    future.set(1)
    with pytest.raises(queue.Full):
        future.set(2)
    with pytest.raises(queue.Full):
        future.set_exception((ValueError, ValueError(), None))
    assert future.get(timeout=1) == 1


def test_a_future_raises_the_exception_it_was_given():
    future = pykka.ThreadingFuture()
    future.set_exception((KeyError, KeyError("x"), None))
    with pytest.raises(KeyError):
        future.get(timeout=1)


def test_the_registry_lists_what_was_registered_and_forgets_what_was_unregistered_even_twice():
    reference = Custom().actor_ref
    pykka.ActorRegistry.register(reference)
    assert reference in pykka.ActorRegistry.get_all()
    pykka.ActorRegistry.unregister(reference)
    pykka.ActorRegistry.unregister(reference)
    assert reference not in pykka.ActorRegistry.get_all()


def test_the_constructor_only_makes_the_parts_and_registers_nothing():
    before = pykka.ActorRegistry.get_all()
    actor = Custom()
    assert pykka.ActorRegistry.get_all() == before
    assert isinstance(actor.actor_ref, ActorRef)
    assert actor.actor_urn.startswith("urn:uuid:")


def test_the_hooks_have_the_names_and_signatures_that_are_overridden():
    for name, parameters in {
        "on_start": [],
        "on_stop": [],
        "on_failure": ["exception_type", "exception_value", "traceback"],
        "stop": [],
        "_actor_loop": [],
        "_create_actor_inbox": [],
    }.items():
        signature = inspect.signature(getattr(pykka.ThreadingActor, name))
        assert [p for p in signature.parameters if p != "self"] == parameters, name


def test_pykka_itself_still_stops_all_actors_on_a_base_exception():
    """The reason for the kernel's own loop. Should Pykka change this, the loop can be thought over again."""
    assert "ActorRegistry.stop_all()" in inspect.getsource(pykka.ThreadingActor._actor_loop_running)
