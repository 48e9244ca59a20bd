"""From a command line to running processes: flags, download, memory plan, supervision."""
