"""Everything the kernel raises.

KernelError
├─ UnhandledMessageError     an actor was sent a message it has no case for: a bug in the protocol
├─ NameTakenError            a name is held by a living actor
├─ SystemClosedError         the actor system was closed
├─ MailboxFullError          an ask met the mailbox tripwire
├─ InboxClosedError          the actor's life is over (internal: ends its loop)
├─ AskError
│   ├─ AskTimeoutError       no answer in time; the receiver may still act on the message
│   └─ ActorUnavailableError the actor was not there, or died before it answered
└─ SimulationError           a simulation was asked for what it cannot do, or made no progress
"""

from __future__ import annotations


class KernelError(Exception):
    """Root of the kernel's errors."""


class UnhandledMessageError(KernelError):
    """An actor was sent a message it has no case for. This is a bug, so the actor crashes and its supervisor sees it."""


class NameTakenError(KernelError):
    """An actor was to be started under a name that a living actor holds."""


class SystemClosedError(KernelError):
    """The actor system was closed; nothing can be started in it any more."""


class MailboxFullError(KernelError):
    """An ask was refused because the receiver's mailbox had reached its tripwire."""


class InboxClosedError(KernelError):
    """The inbox was closed and is empty: the actor's life is over."""


class AskError(KernelError):
    """An ask brought no answer."""


class AskTimeoutError(AskError):
    """No answer arrived in time. The receiver does not know, and may still act on the message."""


class ActorUnavailableError(AskError):
    """The actor asked was not running, or ended before it read the message."""


class SimulationError(KernelError):
    """A simulation was asked for what it cannot do, or ran without making progress."""
