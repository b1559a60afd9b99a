"""Who may use the server and how much: keys, quotas, checks of hosts, origins and bodies."""
