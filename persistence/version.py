"""The version of the tables, without the weight of the tables."""

SCHEMA_VERSION = "0003"
"""The newest migration, which is also what a fresh database is stamped with. The worker refuses any other."""

VERSION_TABLE = "llm_schema_version"
