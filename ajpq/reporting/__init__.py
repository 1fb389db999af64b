"""What a run found, as a page and as a picture; both read nothing but the run folder's files.

A comparison of searchers has a page and a picture of its own.
"""

from ajpq.reporting.compare_page import write_comparison
from ajpq.reporting.figure import search_figure
from ajpq.reporting.page import write_report

__all__ = ["search_figure", "write_comparison", "write_report"]
