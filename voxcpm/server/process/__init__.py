"""The engine process: its messages, the HTTP process's side of the pipe, and the process itself."""
