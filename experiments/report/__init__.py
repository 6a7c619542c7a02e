"""What a study's results say: statistics, verdicts on the findings, the specification curve, figures and one page."""
