"""The front door: the command line, the doctor and the demo. Thin; the packages it opens are imported when used."""

__version__ = "0.1.0"
