"""What the store does for the requests of several jobs that go out together: two messages, each written with whatever else waits to be."""

from collections.abc import Sequence

from ..persistence import batch_orders, batches, ledger
from ..persistence.budgets import Budget
from ..persistence.engine import Connection
from .messages import AskCompany, BatchOrdered, CompanyKnown, LeaseLost, OrderBatch


def answer(
    c: Connection, message: AskCompany | OrderBatch, now: int, actor: str, configured: Sequence[Budget]
) -> list[tuple[str, object]]:
    """Write an order of a driving job whose lease stands, or look whether a call has company. Returns the replies.

    `configured`: the budgets that members count in, beside those of the board.
    """
    if isinstance(message, AskCompany):
        company = batches.has_company(c, message.type, message.group_key)
        return [(message.reply_to, CompanyKnown(message.call, company))]
    lease = message.call.lease
    if not ledger.lease_stands(c, lease):
        return [(message.reply_to, LeaseLost(lease))]
    result = batch_orders.perform(c, lease, message.order, now, actor, configured)
    return [(message.reply_to, BatchOrdered(message.call, result))]
