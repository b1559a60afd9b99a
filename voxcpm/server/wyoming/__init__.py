"""The Wyoming protocol over TCP, by which Home Assistant asks for speech: one event is a line of JSON, then data, then bytes."""
