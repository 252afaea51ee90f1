"""The tables of what is shared out between jobs and workers: limits, budgets, kept answers, batches. For others they are part of `schema`."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from .model import BATCH_REQUEST_STATES, BATCH_STATES
from .schema_parts import any_of, job_id_column, metadata

limit_holds = Table(
    "llm_limit_holds",
    metadata,
    Column("key", Text, primary_key=True),
    Column("until", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Integer, nullable=False),
    Column("kind", Text, nullable=False, server_default="rate"),
)

# What the calls of a key were charged, by the slot of time in which the charges lapse (epoch ms), and by the worker that made them: one limit
# is shared by all workers of a database, and survives them.
limit_usage = Table(
    "llm_limit_usage",
    metadata,
    Column("key", Text, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("input", Integer, nullable=False),
    Column("output", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    PrimaryKeyConstraint("key", "slot", "owner"),
    sqlite_with_rowid=False,
)

# The same by day; `day` is the epoch ms at which it began, in the time zone that the provider counts days in.
limit_days = Table(
    "llm_limit_days",
    metadata,
    Column("key", Text, nullable=False),
    Column("day", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("input", Integer, nullable=False),
    Column("output", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    PrimaryKeyConstraint("key", "day", "owner"),
    sqlite_with_rowid=False,
)

# How each key stands, as its limiter last described it, and how far its limits are lowered after refusals (`factor`, 1 is not at all).
limit_keys = Table(
    "llm_limit_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("factor", Float, nullable=False, server_default="1"),
    Column("factor_at", Integer, nullable=False, server_default="0"),
    Column("first_used_at", Integer, nullable=False),
    Column(
        "description",
        Text,
        CheckConstraint("json_valid(description)", name="description_json"),
        nullable=False,
        server_default="{}",
    ),
    Column("at", Integer, nullable=False),
)

# By which limit keys the calls of each model are admitted, as the worker that started last is configured: JSON lists, see `routes`.
routes = Table(
    "llm_routes",
    metadata,
    Column("model", Text, primary_key=True),
    Column("limit_keys", Text, CheckConstraint("json_valid(limit_keys)", name="limit_keys_json"), nullable=False),
    Column("goes_on", Text, CheckConstraint("json_valid(goes_on)", name="goes_on_json"), nullable=False),
    Column("at", Integer, nullable=False),
)

# What each budget has spent in its period ('' where it has none), and what calls in flight may yet cost. Nano-dollars, and tokens.
budget_usage = Table(
    "llm_budget_usage",
    metadata,
    Column("budget", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("spent", Integer, nullable=False, server_default="0"),
    Column("reserved", Integer, nullable=False, server_default="0"),
    Column("tokens_spent", Integer, nullable=False, server_default="0"),
    Column("tokens_reserved", Integer, nullable=False, server_default="0"),
    # How much it was when it was last asked, and when its period ends (epoch ms), for readers.
    Column("cap", Integer),
    Column("token_cap", Integer),
    Column("until", Integer),
    Column("updated_at", Integer, nullable=False),
    PrimaryKeyConstraint("budget", "period"),
    sqlite_with_rowid=False,
)

# Budgets that a host has put on the board, beside those of the workers' configuration (`budgets.Budget` as JSON).
budgets = Table(
    "llm_budgets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("settings", Text, CheckConstraint("json_valid(settings)", name="settings_json"), nullable=False),
    Column("at", Integer, nullable=False),
)

# What a call has reserved of a budget, until it is settled. A call whose outcome is unknown keeps its reservation: it may have been paid for.
# Triggers carry what is reserved here into `llm_budget_usage`, and count what is deleted as spent.
budget_reservations = Table(
    "llm_budget_reservations",
    metadata,
    Column("call_id", Integer, ForeignKey("llm_calls.id", ondelete="CASCADE"), nullable=False),
    Column("budget", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("amount", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    PrimaryKeyConstraint("call_id", "budget"),
    sqlite_with_rowid=False,
)

# Answers that may be given again to exactly the same request.
cache = Table(
    "llm_cache",
    metadata,
    Column("key", Text, primary_key=True),
    Column("completion", Text, CheckConstraint("json_valid(completion)", name="completion_json"), nullable=False),
    Column("cost", Integer),
    Column("at", Integer, nullable=False),
    Column("hits", Integer, nullable=False, server_default="0"),
    Column("used_at", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
)
# With its size, so that what is kept is measured without reading it.
Index("llm_cache_used", cache.c.used_at, cache.c.bytes)

# The calls under way whose answers will be kept, each by the lease that makes it; void with that lease. Who would ask the same waits for it.
cache_flights = Table(
    "llm_cache_flights",
    metadata,
    Column("key", Text, primary_key=True),
    Column("job_id", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("at", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# Requests of several jobs that go out as one: to a provider's batch API, or as one embeddings request. `job_id` is the job that drives it.
batches = Table(
    "llm_batches",
    metadata,
    Column("id", Integer, primary_key=True),
    job_id_column(),
    Column("kind", Text, CheckConstraint(any_of("kind", ("batch", "group")), name="batch_kind"), nullable=False),
    Column("provider", Text, nullable=False),
    # What may go together: provider, endpoint, model (where a batch holds one only), API version.
    Column("group_key", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column(
        "state",
        Text,
        CheckConstraint(any_of("state", BATCH_STATES), name="batch_state"),
        nullable=False,
        server_default="open",
    ),
    Column("requests", Integer, nullable=False, server_default="0"),
    Column("bytes", Integer, nullable=False, server_default="0"),
    Column("tokens", Integer, nullable=False, server_default="0"),
    # Our own name for it at the provider, by which it is found again after a crash between asking for it and hearing of it.
    Column("tag", Text, nullable=False),
    Column("sha256", Text),
    Column("file_id", Text),
    Column("batch_id", Text),
    Column("results", Text, CheckConstraint("results IS NULL OR json_valid(results)", name="results_json")),
    Column("offset", Integer, nullable=False, server_default="0"),
    Column("polls", Integer, nullable=False, server_default="0"),
    Column("created_at", Integer, nullable=False),
    Column("sealed_at", Integer),
    Column("creating_at", Integer),
    Column("submitted_at", Integer),
    Column("ended_at", Integer),
    Column("updated_at", Integer, nullable=False),
    Column("error", Text, CheckConstraint("error IS NULL OR json_valid(error)", name="error_json")),
    sqlite_autoincrement=True,
)
Index("llm_batches_open", batches.c.group_key, sqlite_where=text("state = 'open'"))
Index("llm_batches_job", batches.c.job_id)

# One request of a batch. waiting: in an open or sealed batch. sent: its call is in the ledger, and the batch with the provider, or about to be. done: its answer is in the ledger. failed: refused for
# good. left: its job went on without it, and an answer that still comes is only booked. again: the batch ended without it; it is asked anew.
batch_requests = Table(
    "llm_batch_requests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("batch_id", Integer, ForeignKey("llm_batches.id", ondelete="CASCADE"), nullable=False),
    job_id_column(),
    Column("step", Text, nullable=False),
    Column(
        "state",
        Text,
        CheckConstraint(any_of("state", BATCH_REQUEST_STATES), name="batch_request_state"),
        nullable=False,
        server_default="waiting",
    ),
    # The model as its job named it, by which the worker finds price and route; and as the provider calls it.
    Column("model", Text, nullable=False),
    Column("provider_model", Text, nullable=False),
    # How many texts are to be embedded; 0: it is a chat.
    Column("inputs", Integer, nullable=False, server_default="0"),
    Column("fingerprint", Text, nullable=False),
    Column("limit_key", Text, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("reserved_cost", Integer),
    Column("call_id", Integer, ForeignKey("llm_calls.id", ondelete="SET NULL")),
    Column("error", Text, CheckConstraint("error IS NULL OR json_valid(error)", name="error_json")),
    Column("deadline", Integer),
    Column("at", Integer, nullable=False),
    sqlite_autoincrement=True,
)
Index("llm_batch_requests_batch", batch_requests.c.batch_id, batch_requests.c.state)
Index("llm_batch_requests_job", batch_requests.c.job_id, batch_requests.c.step)
Index("llm_batch_requests_call", batch_requests.c.call_id, sqlite_where=text("call_id IS NOT NULL"))
Index(
    "llm_batch_requests_due",
    batch_requests.c.deadline,
    sqlite_where=text("state IN ('waiting', 'sent') AND deadline IS NOT NULL"),
)

# The requests themselves, apart, because their rows change with every arrow. Gone when the request has come to its end.
batch_bodies = Table(
    "llm_batch_bodies",
    metadata,
    Column(
        "request_id", Integer, ForeignKey("llm_batch_requests.id", ondelete="CASCADE"), primary_key=True, nullable=False
    ),
    Column("request", Text, CheckConstraint("json_valid(request)", name="request_json"), nullable=False),
)
