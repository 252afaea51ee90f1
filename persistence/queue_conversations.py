"""Conversations in a host's hand: making one, reading its log, branching off from it."""

from typing import TYPE_CHECKING, Any

from .errors import InvalidJobError
from .model import ConversationSettings, History, LogMessage
from .queue_connections import QueueConnections

if TYPE_CHECKING:
    from .conversations import ConversationRow, ConversationSummary


class Conversation:
    """A conversation on the board. Any thread; every look reads the database.

    Its methods may raise a `DatabaseError`, and ConversationNotFoundError if it was deleted.

    A turn is a job added with `queue.add(..., conversation=name)`. Turns run one at a time, in the order they were added, over any number of
    workers; what a completed turn said is appended to the log in the transaction that completes it, and nothing else is.
    """

    def __init__(self, queue: QueueConnections, conversation_id: int, name: str) -> None:
        self._queue = queue
        self._id = conversation_id
        self._name = name

    def __repr__(self) -> str:
        return f"<Conversation {self._name!r}>"

    @property
    def id(self) -> int:
        """Its id, never given to another."""
        return self._id

    @property
    def name(self) -> str:
        """Its name, which is its own."""
        return self._name

    @property
    def settings(self) -> ConversationSettings:
        """How it is kept and sent."""
        return self._row().settings

    def messages(self) -> list[LogMessage]:
        """All that was said, oldest first, with the summaries of what prompts leave out by now (role "summary")."""
        from . import conversations

        with self._queue._reader() as connection:  # noqa: SLF001  # a part of the queue, as Job is
            return [message for message in conversations.log(connection, self._id) if message.role != "trim"]

    def history(self, budget: int | None = None) -> History:
        """What the next turn would be given: at least as many of the newest messages as `budget` tokens hold (None: the context window)."""
        from . import conversations

        row = self._row()
        with self._queue._reader() as connection:  # noqa: SLF001
            return conversations.history(connection, row.id, row.name, row.settings, budget=budget)

    def fork(self, at: int | None = None, *, name: str) -> "Conversation":
        """A new conversation with the same settings that shares the past up to and with the message `at` (None: all there is now).

        Neither sees what the other says from then on. Raises InvalidJobError if the name is taken, or the message is not of this log.
        """
        from . import conversations

        with self._queue._writer() as connection:  # noqa: SLF001
            made = conversations.fork(
                connection, conversations.required(connection, self._name), at, name, self._queue.clock()
            )
        if made is None:
            raise InvalidJobError("name", f"there is a conversation {name!r} already")
        return Conversation(self._queue, made.id, made.name)

    def _row(self) -> "ConversationRow":
        from . import conversations

        with self._queue._reader() as connection:  # noqa: SLF001
            return conversations.required(connection, self._name)


class QueueConversations(QueueConnections):
    """The part of `JobQueue` that is about conversations."""

    def conversation(self, name: str, *, create: bool = True, **settings: Any) -> Conversation:
        """Get or create a conversation. `settings` are those of `ConversationSettings`, and take the place of those it had.

        Without settings, one that exists is only read. Raises InvalidJobError, naming the setting; and ConversationNotFoundError without
        `create`.
        """
        from . import conversations

        with self._reader() as connection:
            find = conversations.by_name if create else conversations.required
            row = find(connection, conversations.checked_name(name))
        if row is None or settings:
            with self._writer() as connection:
                row = conversations.open_conversation(connection, name, settings, self.clock())
        return Conversation(self, row.id, row.name)

    def conversations(self, *, limit: int = 100, before: int | None = None) -> "list[ConversationSummary]":
        """Every conversation, the newest first. The next page is `before` the last id of this one."""
        from . import conversations

        with self._reader() as connection:
            return conversations.listing(connection, limit, before)
