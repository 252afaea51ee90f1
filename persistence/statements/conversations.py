"""Conversations and their logs. SQLAlchemy Core and text, compiled ahead of time into `sql_text`; the functions are in `persistence.conversations`."""

from sqlalchemy import bindparam, select, text, update
from sqlalchemy.dialects.sqlite import insert

from ..schema import conversations, messages

CREATE = (
    insert(conversations)
    .values({name: bindparam(name) for name in ("name", "head_id", "settings", "created_at")})
    .on_conflict_do_nothing(index_elements=["name"])
    .returning(conversations.c.id)
)
BY_NAME = select(
    conversations.c.id,
    conversations.c.name,
    conversations.c.head_id,
    conversations.c.settings,
    conversations.c.created_at,
).where(conversations.c.name == bindparam("wanted"))
SET_SETTINGS = (
    update(conversations).where(conversations.c.id == bindparam("wanted")).values(settings=bindparam("settings"))
)

LIST = text("""
    SELECT c.id, c.name, coalesce(head.turn, 0),
           (SELECT count(*) FROM llm_jobs WHERE conversation_id = c.id AND conversation_id IS NOT NULL
            AND (state = 'active' OR state = 'delayed' OR state = 'waiting' OR state = 'waiting_children')),
           c.created_at, coalesce(head.at, c.created_at)
    FROM llm_conversations AS c LEFT JOIN llm_messages AS head ON head.id = c.head_id
    WHERE c.id < :before ORDER BY c.id DESC LIMIT :limit + 0
    """)
# The jobs of a claim that are turns: a few steps of an index.
TURNS = text("""
    SELECT job.id, c.id, c.name, c.settings FROM json_each(:ids) AS claimed
    CROSS JOIN llm_jobs AS job ON job.id = claimed.value
    CROSS JOIN llm_conversations AS c ON c.id = job.conversation_id
    """)

# From the head back, as far as the newest mark of what is left out, or until there is more than a prompt can take. A message is always
# younger than the one before it, so that "before what is left out" is a comparison of ids.
_CUT = "CASE WHEN m.role = 'trim' OR m.role = 'summary' THEN json_extract(m.content, '$.covers[1]') ELSE 0 END"
_TOKENS = "coalesce(m.tokens, length(m.content) / 3)"
HISTORY = text(f"""
    WITH RECURSIVE chain(id, parent_id, turn, role, content, tokens, job_id, at, cut, size) AS (
        SELECT m.id, m.parent_id, m.turn, m.role, m.content, m.tokens, m.job_id, m.at, {_CUT}, {_TOKENS}
        FROM llm_conversations AS c JOIN llm_messages AS m ON m.id = c.head_id WHERE c.id = :wanted
        UNION ALL
        SELECT m.id, m.parent_id, m.turn, m.role, m.content, m.tokens, m.job_id, m.at, max(chain.cut, {_CUT}), chain.size + {_TOKENS}
        FROM chain CROSS JOIN llm_messages AS m ON m.id = chain.parent_id
        WHERE chain.parent_id > chain.cut AND chain.size <= :budget
    )
    SELECT id, parent_id, turn, role, content, tokens, job_id, at FROM chain ORDER BY id
    """)
LOG = text("""
    WITH RECURSIVE chain(id, parent_id, turn, role, content, tokens, job_id, at) AS (
        SELECT m.id, m.parent_id, m.turn, m.role, m.content, m.tokens, m.job_id, m.at
        FROM llm_conversations AS c JOIN llm_messages AS m ON m.id = c.head_id WHERE c.id = :wanted
        UNION ALL
        SELECT m.id, m.parent_id, m.turn, m.role, m.content, m.tokens, m.job_id, m.at
        FROM chain CROSS JOIN llm_messages AS m ON m.id = chain.parent_id
    )
    SELECT id, parent_id, turn, role, content, tokens, job_id, at FROM chain ORDER BY id
    """)
MESSAGE = select(
    messages.c.id,
    messages.c.parent_id,
    messages.c.turn,
    messages.c.role,
    messages.c.content,
    messages.c.tokens,
    messages.c.job_id,
    messages.c.at,
).where(messages.c.id == bindparam("wanted"))

HEAD = text("""
    SELECT c.head_id, coalesce(head.turn, 0) FROM llm_conversations AS c LEFT JOIN llm_messages AS head ON head.id = c.head_id
    WHERE c.id = :wanted
    """)
APPEND = (
    insert(messages)
    .values(
        {
            name: bindparam(name)
            for name in ("conversation_id", "parent_id", "turn", "role", "content", "tokens", "job_id", "at")
        }
    )
    .returning(messages.c.id)
)
MOVE_HEAD = update(conversations).where(conversations.c.id == bindparam("wanted")).values(head_id=bindparam("new_head"))

# It takes after the turn it was made by, and is charged like any other job.
SUMMARISE = text("""
    INSERT INTO llm_jobs (type, key, queue, model, priority, tag, parent_id, root_id, changed_by, created_at, updated_at)
    SELECT 'chat', :summary_key, queue, model, priority, tag, id, coalesce(root_id, id), :actor, :now, :now FROM llm_jobs WHERE id = :job_id
    ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING
    RETURNING id
    """)
SUMMARY_DATA = text("INSERT INTO llm_job_data (job_id, description, data) VALUES (:job_id, :description, :data)")
