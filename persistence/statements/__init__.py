"""The source of all SQL, in SQLAlchemy Core: one module of statements beside each module of functions that runs them.

They are compiled ahead of time into `persistence/sql_text.py` (`make sql`; a test holds the two together), so that a worker, a command or a
host needs the text alone: SQLAlchemy costs 15 MB of memory and a tenth of a second to import.
"""
