"""Intervals, tests and ratings: what figures can prove. Nothing here knows of runs or metrics."""
