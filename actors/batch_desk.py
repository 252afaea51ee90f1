"""What the store does for the requests of several jobs that go out together: two messages, each written with whatever else waits to be."""

from ..persistence import batch_orders, batches, ledger
from ..persistence.engine import Connection
from .messages import AskCompany, BatchOrdered, CompanyKnown, LeaseLost, OrderBatch


def answer(c: Connection, message: AskCompany | OrderBatch, now: int, actor: str) -> list[tuple[str, object]]:
    """Write an order of a driving job whose lease stands, or look whether a call has company. Returns the replies."""
    if isinstance(message, AskCompany):
        company = batches.has_company(c, message.type, message.group_key)
        return [(message.reply_to, CompanyKnown(message.call, company))]
    lease = message.call.lease
    if not ledger.lease_stands(c, lease):
        return [(message.reply_to, LeaseLost(lease))]
    result = batch_orders.perform(c, lease, message.order, now, actor)
    return [(message.reply_to, BatchOrdered(message.call, result))]
