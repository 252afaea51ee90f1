"""Callboard: durable, supervised LLM work.

    from callboard import JobQueue, Supervisor, spawn

    queue = JobQueue("sqlite:///jobs.db")                    # a host: the database, no actors
    job = queue.add("chat", {"prompt": "…"}, model="fast", priority=10)
    for chunk in job.stream(): print(chunk.text, end="")
    print(job.wait(timeout=30).result)

    with Supervisor(config) as supervisor: ...                # embedded: threads in this process
    worker = spawn(config)                                   # or: a watched child process

Names are imported when they are first used: a host that only adds jobs loads no actors, and `import callboard` loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard.actors.providers.model import Completion, Embeddings, Finish, Message, Request, Tool, Usage
    from callboard.actors.providers.own import OwnProvider, ProviderFailed
    from callboard.actors.providers.parts import Image, Text, ToolCall, ToolResult
    from callboard.actors.runner.chat_data import InvalidDataError
    from callboard.actors.runner.context import AsyncJobContext, JobContext
    from callboard.actors.runner.effects import CallFailedError, JobInterrupted
    from callboard.config import Config, ConfigError, load_config
    from callboard.embedded import CompanyFailedError, Supervisor
    from callboard.persistence.async_queue import AsyncJob, AsyncJobQueue
    from callboard.persistence.errors import (
        CallboardError,
        ConversationNotFoundError,
        DatabaseError,
        HostTransactionError,
        InvalidJobError,
        InvalidQueryError,
        JobCancelledError,
        JobFailedError,
        JobNotFoundError,
        WaitTimeoutError,
    )
    from callboard.persistence.events import Event
    from callboard.persistence.flow_plan import FlowJob
    from callboard.persistence.host_transaction import sqlite_driver
    from callboard.persistence.job import Job
    from callboard.persistence.job_queue import JobQueue
    from callboard.persistence.lifecycle import JobState
    from callboard.persistence.model import Chunk, JobInput
    from callboard.persistence.queue_conversations import Conversation
    from callboard.process import WorkerProcess, spawn

__version__ = "0.1.0"

__all__ = [
    "AsyncJob",
    "AsyncJobContext",
    "AsyncJobQueue",
    "CallFailedError",
    "CallboardError",
    "Chunk",
    "CompanyFailedError",
    "Completion",
    "Config",
    "ConfigError",
    "Conversation",
    "ConversationNotFoundError",
    "DatabaseError",
    "Embeddings",
    "Event",
    "Finish",
    "FlowJob",
    "HostTransactionError",
    "Image",
    "InvalidDataError",
    "InvalidJobError",
    "InvalidQueryError",
    "Job",
    "JobCancelledError",
    "JobContext",
    "JobFailedError",
    "JobInput",
    "JobInterrupted",
    "JobNotFoundError",
    "JobQueue",
    "JobState",
    "Message",
    "OwnProvider",
    "ProviderFailed",
    "Request",
    "Supervisor",
    "Text",
    "Tool",
    "ToolCall",
    "ToolResult",
    "Usage",
    "WaitTimeoutError",
    "WorkerProcess",
    "__version__",
    "load_config",
    "spawn",
    "sqlite_driver",
]

_HOME = {
    "AsyncJob": "persistence.async_queue",
    "AsyncJobContext": "actors.runner.context",
    "AsyncJobQueue": "persistence.async_queue",
    "CallFailedError": "actors.runner.effects",
    "CallboardError": "persistence.errors",
    "Chunk": "persistence.model",
    "CompanyFailedError": "embedded",
    "Completion": "actors.providers.model",
    "Config": "config",
    "ConfigError": "config",
    "Conversation": "persistence.queue_conversations",
    "ConversationNotFoundError": "persistence.errors",
    "DatabaseError": "persistence.errors",
    "Embeddings": "actors.providers.model",
    "Event": "persistence.events",
    "Finish": "actors.providers.model",
    "FlowJob": "persistence.flow_plan",
    "HostTransactionError": "persistence.errors",
    "Image": "actors.providers.parts",
    "InvalidDataError": "actors.runner.chat_data",
    "InvalidJobError": "persistence.errors",
    "InvalidQueryError": "persistence.errors",
    "Job": "persistence.job",
    "JobCancelledError": "persistence.errors",
    "JobContext": "actors.runner.context",
    "JobFailedError": "persistence.errors",
    "JobInput": "persistence.model",
    "JobInterrupted": "actors.runner.effects",
    "JobNotFoundError": "persistence.errors",
    "JobQueue": "persistence.job_queue",
    "JobState": "persistence.lifecycle",
    "Message": "actors.providers.model",
    "OwnProvider": "actors.providers.own",
    "ProviderFailed": "actors.providers.own",
    "Request": "actors.providers.model",
    "Supervisor": "embedded",
    "Text": "actors.providers.parts",
    "Tool": "actors.providers.model",
    "ToolCall": "actors.providers.parts",
    "ToolResult": "actors.providers.parts",
    "Usage": "actors.providers.model",
    "WaitTimeoutError": "persistence.errors",
    "WorkerProcess": "process",
    "load_config": "config",
    "spawn": "process",
    "sqlite_driver": "persistence.host_transaction",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'callboard' has no attribute {name!r}")
    value = getattr(import_module(f"callboard.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
