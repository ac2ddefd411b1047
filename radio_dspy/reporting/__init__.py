"""Results of a run or an evaluation: report, comparison, pages."""
