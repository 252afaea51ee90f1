"""The table of faults: what a server does, and what becomes of the job. docs/failures.md is made from it (`make failures`).

A job has two attempts (one where a deadline would have to pass twice), and the fault is there at each request unless it says `once`. Whoever
changes a row changes what is promised.
"""

from fault_rows_answers import ANSWERS, BODY, HEADERS, STREAM
from fault_rows_http import CONNECTION, STATUS

TABLE = (*CONNECTION, *STATUS, *BODY, *STREAM, *HEADERS, *ANSWERS)
