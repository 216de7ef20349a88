"""What the machine gives: devices, processes, signals, memory."""
