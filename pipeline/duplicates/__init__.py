"""The same audio twice: prints of segments, what matches what, and the groups that follow."""
