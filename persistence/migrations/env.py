"""What Alembic runs: our revisions over the connection that `migrate` hands it. There is no offline mode and no ini file."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table=context.config.attributes["version_table"],
    transaction_per_migration=False,
)
context.run_migrations()
