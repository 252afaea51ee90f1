"""What calls have cost, by what one asks for. SQLAlchemy Core's text; the functions are in `persistence.costs`."""

from sqlalchemy import TextClause, text

from ..model import USAGE_COLUMNS

_SUMS = ", ".join(f"sum({name}) AS {name}" for name in USAGE_COLUMNS)
_TOTALS = ", ".join(f"coalesce(sum({name}), 0)" for name in USAGE_COLUMNS)
# An unknown outcome may have been paid for: what was reserved for it is told apart, as is what is under way.
_MEASURED = f"""count(*) AS calls, {_SUMS}, sum(cost) AS cost, sum(cost IS NULL AND c.state IN ('completed', 'superseded')) AS unpriced,
    sum(CASE WHEN c.state = 'open' THEN reserved_cost END) AS reserved, sum(c.state = 'unknown') AS unknown,
    sum(CASE WHEN c.state = 'unknown' THEN reserved_cost END) AS unknown_cost, sum(saved) AS saved"""
_DELETED = f"""sum(calls) AS calls, {_SUMS}, sum(cost) AS cost, sum(unpriced) AS unpriced, NULL AS reserved, 0 AS unknown, NULL AS unknown_cost, NULL AS saved"""
_GONE = "'(deleted jobs)'"


def _costs(of_call: str, of_deleted: str) -> TextClause:
    """Summed by an expression over calls `c` and their jobs `j`, and one over the totals of deleted jobs."""
    return text(f"""
    SELECT name, sum(calls), {_TOTALS}, sum(cost), sum(unpriced), sum(reserved), sum(unknown), sum(unknown_cost), sum(saved) FROM (
        SELECT {of_call} AS name, {_MEASURED} FROM llm_calls AS c JOIN llm_jobs AS j ON j.id = c.job_id
        WHERE c.sent_at >= :since AND c.sent_at < :before AND (:tag IS NULL OR j.tag = :tag) GROUP BY 1
        UNION ALL
        SELECT {of_deleted}, {_DELETED} FROM llm_usage_deleted
        WHERE day >= :since / 86400000 AND day <= (:before - 1) / 86400000 AND (:tag IS NULL OR tag = :tag) GROUP BY 1
    ) GROUP BY name ORDER BY coalesce(sum(cost), -1) DESC, sum(calls) DESC, name LIMIT :limit + 0
    """)


_DAY = "strftime('%Y-%m-%d', {at}, 'unixepoch')"
BY_JOB = _costs("CAST(c.job_id AS TEXT)", _GONE)
BY_TREE = _costs("CAST(coalesce(j.root_id, j.id) AS TEXT)", _GONE)
BY_TAG = _costs("coalesce(j.tag, '')", "tag")
BY_MODEL = _costs(
    "c.provider || ':' || c.model", f"CASE WHEN provider = '' THEN {_GONE} ELSE provider || ':' || model END"
)
BY_PROVIDER = _costs("c.provider", f"CASE WHEN provider = '' THEN {_GONE} ELSE provider END")
BY_DAY = _costs(_DAY.format(at="c.sent_at / 1000"), _DAY.format(at="day * 86400"))
BY_TYPE = _costs("j.type", _GONE)
BY_QUEUE = _costs("j.queue", _GONE)
BY_ALL = _costs("'all'", "'all'")

# A job with everything below it that it created.
OF_TREE = text("""
    WITH RECURSIVE tree(id) AS (
        SELECT :wanted UNION ALL SELECT child.id FROM tree CROSS JOIN llm_jobs AS child ON child.parent_id = tree.id
    )
    SELECT count(DISTINCT tree.id), count(c.id), sum(c.cost), sum(c.cost IS NULL AND c.state IN ('completed', 'superseded')),
        sum(CASE WHEN c.state = 'open' THEN c.reserved_cost END), sum(CASE WHEN c.state = 'unknown' THEN c.reserved_cost END)
    FROM tree LEFT JOIN llm_calls AS c ON c.job_id = tree.id
    """)
