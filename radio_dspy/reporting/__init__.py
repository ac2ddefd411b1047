"""What a run or an evaluation gave: report, comparison, pages."""
