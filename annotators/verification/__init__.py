"""The pass that compares descriptions with evidence: findings, verdicts, votes, leaks, and the rows that it writes."""
