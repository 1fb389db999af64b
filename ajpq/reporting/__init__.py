"""What a run found, as a page and as a picture; both read nothing but the run folder's files."""

from ajpq.reporting.figure import search_figure
from ajpq.reporting.page import write_report

__all__ = ["search_figure", "write_report"]
