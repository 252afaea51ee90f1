"""Where the workers' models lead. Plain text, compiled ahead of time into `sql_text`; the functions are in `persistence.routes`."""

from sqlalchemy import text

PUBLISH = text("""
    INSERT INTO llm_routes (model, limit_keys, goes_on, at) VALUES (:model, :keys, :goes_on, :now)
    ON CONFLICT DO UPDATE SET limit_keys = excluded.limit_keys, goes_on = excluded.goes_on, at = excluded.at
    """)
OF = text("SELECT limit_keys, goes_on FROM llm_routes WHERE model = :model")
