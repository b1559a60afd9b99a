"""Run sessions through the stages: one interface, in one process or over Ray actors."""
