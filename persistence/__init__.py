"""The board: the database that hosts and workers share."""
