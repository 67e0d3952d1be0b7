"""What the commands do that is more than a call: one file a command."""
