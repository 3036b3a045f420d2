"""Questions that the ledger answers: what happened, who was champion when, what a version was made from, and whether all of it still holds."""

from recompress.audit.check import AuditReport, check_all
from recompress.audit.history import Reign, log_lines, parse_time, reigns, who_was
from recompress.audit.trace import Trace, find_plan, trace
from recompress.audit.trouble import Trouble

__all__ = ["AuditReport", "Reign", "Trace", "Trouble", "check_all", "find_plan", "log_lines", "parse_time", "reigns", "trace", "who_was"]
