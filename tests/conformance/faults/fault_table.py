"""The table of faults: what a server does, and what becomes of the job. docs/failures.md is made from it (`make failures`).

A job has two attempts (one where a deadline would have to pass twice), and the fault is there at each request unless it says `once`. Whoever
changes a row changes what is promised.
"""

from fault_rows_answers import ANSWERS, BODY, HEADERS, STREAM
from fault_rows_background import ROWS as BACKGROUND
from fault_rows_http import CONNECTION, STATUS
from fault_rows_own import ROWS as OWN
from fault_rows_vectors import ROWS as VECTORS

CHATS = (*CONNECTION, *STATUS, *BODY, *STREAM, *HEADERS, *ANSWERS)
TABLE = (*CHATS, *VECTORS, *OWN, *BACKGROUND)
